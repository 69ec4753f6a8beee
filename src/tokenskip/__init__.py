"""Teach a language model to think in fewer tokens, and choose how few."""
