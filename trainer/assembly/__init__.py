"""Settings in, plain objects out: where trainer, data and models meet."""
