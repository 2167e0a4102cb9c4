"""Conditional against dense matrix multiplication on the processor of this machine, measured (docs/fff-cpu.md)."""
