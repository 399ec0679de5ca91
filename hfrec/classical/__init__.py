"""Recommenders without gradients: what is popular, what followed, and which items go together."""
