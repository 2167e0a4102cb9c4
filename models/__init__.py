"""PyTorch side of Sterna: layers, training, checkpoints and image writing. The only folder that imports torch."""
