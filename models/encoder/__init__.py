"""An encoder with fast feedforward layers (UltraFastBERT): PyTorch modules, training, evaluation."""
