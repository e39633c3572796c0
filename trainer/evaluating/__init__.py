"""Evaluations: of a run, of its exports, and beside a training that goes on."""
