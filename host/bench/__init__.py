"""Measurements of tokens per second, and their tables."""
