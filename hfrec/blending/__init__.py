"""Blends: what they are made of, how their weights are fitted, what they are worth."""
