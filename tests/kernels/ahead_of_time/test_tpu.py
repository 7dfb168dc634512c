import importlib.util
import sys

import pytest

from caduceus_jax.kernels.ahead_of_time.tpu import CHIPS, estimated_cycles, main


def test_clocks_follow_from_published_peaks():
    clocks = {chip.name: round(chip.clock / 1e9, 2) for chip in CHIPS}
    assert clocks == {"v4": 1.05, "v5e": 1.5, "v5p": 1.75, "v6e": 1.75, "7x": 2.2}


def test_the_compilers_estimates_are_multiplied_by_how_often_loops_run():
    text = """
inner (x: f32[2]) -> f32[2] {
  %a = f32[2] fusion(%x), backend_config={"estimated_cycles":"5"}
}
outer (x: f32[2]) -> f32[2] {
  %b = f32[2] fusion(%x), backend_config={"estimated_cycles":"7"}
  %c = f32[2] while(%b), condition=%less, body=%inner
}
ENTRY main.1 (x: f32[2]) -> f32[2] {
  %d = f32[2] while(%x), condition=%less, body=%outer
  %e = f32[2] copy(%d), backend_config={"estimated_cycles":"11"}
}
"""
    assert estimated_cycles(text, (10, 3)) == 11 + 10 * (7 + 3 * 5)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is here")
def test_without_the_compiler_it_says_where_to_get_it(capsys):
    assert main([]) == 2
    assert 'pip install "jax[tpu]"' in capsys.readouterr().err


@pytest.mark.tpu
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
def test_the_bars_are_met_on_v5e():
    import subprocess

    command = [sys.executable, "-m", "caduceus_jax.kernels.ahead_of_time.tpu"]
    subprocess.run([*command, "--chips", "v5e", "--no-memory"], check=True)
