"""All that lies in a run's folder, and what writes it."""
