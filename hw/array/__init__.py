"""Weights meet activations: trit decoder, R x C array, accumulators, row queue."""
