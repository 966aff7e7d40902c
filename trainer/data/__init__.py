"""What it is trained on: packs, and the order in which steps take them."""
