"""Set-up of the test process: several logical devices, quiet TensorFlow."""

import gc
import logging
import os
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# As `trainer.main` does: the half a million objects of the imports are no garbage, and
# looking for some among them takes a part of the time of all tests.
gc.disable()

import keras  # noqa: E402
import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow.python.framework import config as tf_config  # noqa: E402

from tests.stand_ins import forgetting, pix2pix  # noqa: E402, F401

gc.freeze()
gc.enable()

# Stand-ins for four GPUs; must come before anything touches a device.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 4,
)

# A shell lets what it starts with `&` ignore SIGINT, and `nohup` SIGHUP; tests of
# signals begin with what Python does by itself.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

_LONG_FILES = (
    "test_cluster.py",
    "test_resume.py",
    "test_main.py",
    "test_readme.py",
    "test_own_data.py",
    "test_steps.py",
    "test_encoders.py",
)
"""Those with tests of ten seconds and more."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option to test what takes minutes more."""
    parser.addoption(
        "--all-encoders",
        action="store_true",
        help="test every encoder; default: one of each kind",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts long tests first, so that whoever is done waits for a short one."""
    items.sort(key=lambda item: item.path.name not in _LONG_FILES)


@pytest.fixture(autouse=True)
def _keep_globals():
    """Puts back what a test may change for the whole process."""
    floatx = keras.config.floatx()
    # As at the start of a process. TensorFlow sets another level as it saves a model,
    # and `caplog` would see less of it from then on.
    logging.getLogger("absl").setLevel(logging.NOTSET)
    yield
    tf_config.disable_op_determinism()
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy("float32")
