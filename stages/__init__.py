"""What: each stage is a pure function of one bounded frame. No stage opens a file, logs, or knows where it runs."""
