"""The program with the encoder of `tests.shallow`: `python -m` starts it.

For tests that start many processes. `launch/local.sh` in `tests.test_cluster` and
`tests.faults.run` start the program itself.
"""

import pytest

from tests import shallow
from trainer import main

if __name__ == "__main__":
    shallow.shorten(pytest.MonkeyPatch())
    main.run()
