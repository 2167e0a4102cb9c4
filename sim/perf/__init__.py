"""Predicts the accelerator's cycles without simulating it: event times of a token's program, part by part."""
