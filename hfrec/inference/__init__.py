"""Recommendations from raw item ids: as a function, a pipeline of transformers, an exported graph."""
