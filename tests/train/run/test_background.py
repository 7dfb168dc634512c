import subprocess
import sys
import time

import pytest

from caduceus_jax.train.run.background import in_background


def test_results_and_errors_come_back():
    assert in_background(lambda a, b: a + b, 1, 2).result() == 3

    def fail():
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        in_background(fail).result()


def test_what_hangs_does_not_keep_the_process():
    program = (
        "import time\n"
        "from caduceus_jax.train.run.background import in_background\n"
        "in_background(time.sleep, 600)\n"
    )
    begun = time.monotonic()
    subprocess.run([sys.executable, "-P", "-c", program], check=True, timeout=120)
    assert time.monotonic() - begun < 100
