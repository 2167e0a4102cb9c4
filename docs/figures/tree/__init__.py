"""Figures of fast feedforward layers."""
