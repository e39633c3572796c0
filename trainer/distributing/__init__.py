"""Devices and workers that share the work."""
