"""Shorter chains from every source, and the ones that are trained on."""
