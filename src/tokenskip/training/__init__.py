"""Shorter chains -> an adapter."""
