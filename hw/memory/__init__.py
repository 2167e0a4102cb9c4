"""The memory port and everything that uses it: fetch, stores, arbiter, gearbox, router, on-chip
memory.
"""
