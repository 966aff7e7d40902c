"""Where and when: sources, keys, the store, the runner and the command line."""
