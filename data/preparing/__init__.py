"""From encoded examples to arrays of one size."""
