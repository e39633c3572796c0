"""A training: its loop, when what is due, and the means between two reports."""
