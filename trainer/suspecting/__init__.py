"""Masks that a model doubts: which, where, why, and how much."""
