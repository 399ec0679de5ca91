"""Checkpoints as folders and on a model hub."""
