"""What a person sees of a run: progress, numbers on disk, and what would be done."""
