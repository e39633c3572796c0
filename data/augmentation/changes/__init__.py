"""The random changes to training examples, one a module."""
