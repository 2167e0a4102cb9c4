"""Sterna: MatMul-free ternary language models on FPGAs. The parts of this package lie in the folders of its checkout."""
