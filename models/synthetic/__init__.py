"""Checkpoints of the published layout at any size, with weights that are made up but look trained: for conversion,
boards and speed where the published ones are not at hand. No PyTorch in here.
"""
