"""Sterna on a CPU beside llama.cpp: the same number of ternary weights, the same threads, in one run."""
