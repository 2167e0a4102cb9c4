"""Sterna: MatMul-free ternary language models on FPGAs; the parts of this package are folders of its checkout."""
