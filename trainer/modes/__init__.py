"""What `--mode` can be: one module each, with a function `run(config)`."""

MODES = {
    "train": "trainer.modes.train",
    "train_and_evaluate": "trainer.modes.train",
    "evaluate": "trainer.modes.evaluate",
    "benchmark": "trainer.modes.benchmark",
    "doctor": "trainer.modes.doctor",
}
"""The module of each mode; imported when it is asked for, since TensorFlow is slow."""
