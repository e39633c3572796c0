"""The program with the encoder of `tests.shallow`: `python -m` starts it.

For tests that start many processes. `tests.faults.run` starts the program itself.
"""

import pytest

from tests import shallow
from trainer import main

if __name__ == "__main__":
    shallow.shorten(pytest.MonkeyPatch())
    main.run()
