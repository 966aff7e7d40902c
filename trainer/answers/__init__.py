"""What a model writes: generation from token ids."""
