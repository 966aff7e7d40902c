"""What is trained: the shapes of a model, its arithmetic, and its weights on disk."""
