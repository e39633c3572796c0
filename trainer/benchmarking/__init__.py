"""What `--mode=benchmark` measures, and what it compares with."""
