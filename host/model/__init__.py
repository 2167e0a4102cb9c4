"""Model files: images, checkpoints and tokenizers."""
