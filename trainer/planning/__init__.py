"""What a run costs, and what can be done in a given time."""
