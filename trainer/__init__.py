"""Fine-tuning on packed shards. Reads a finished run; imports nothing of the pipeline that wrote it."""
