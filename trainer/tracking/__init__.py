"""Experiment trackers, to which a run's settings and curves go, too."""
