"""The mathematics of a step, run on the devices of a strategy."""
