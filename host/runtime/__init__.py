"""Tokens from anything that runs a model."""
