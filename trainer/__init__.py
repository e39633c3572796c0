"""Training, evaluation and everything that runs around the model."""
