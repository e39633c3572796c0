"""A running process: its progress, its signals, its end."""
