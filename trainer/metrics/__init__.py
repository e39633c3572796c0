"""Metrics: `registry` names the chosen ones, and each is a file of its own."""
