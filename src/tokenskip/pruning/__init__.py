"""Importance of tokens -> shorter chains of thought."""
