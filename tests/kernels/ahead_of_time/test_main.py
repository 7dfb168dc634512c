import pytest

from caduceus_jax.kernels.ahead_of_time import __main__ as table
from caduceus_jax.kernels.ahead_of_time import devices, gpu
from caduceus_jax.kernels.ahead_of_time.gpu import CONVOLUTION
from caduceus_jax.kernels.ahead_of_time.machine_code import Assembler, Cost


class NoAssembler(Assembler):
    def __init__(self):
        pass

    def forget(self):
        pass


@pytest.mark.skipif(devices.installed("libtpu"), reason="libtpu is here")
def test_a_missing_compiler_is_named(capsys):
    assert table.main(["--devices", "v5e"]) == 2
    assert capsys.readouterr().err.startswith("needs libtpu: see the head of")


def test_an_unknown_device_is_refused(capsys):
    with pytest.raises(SystemExit):
        table.main(["--devices", "h300"])
    assert "invalid choice: 'h300'" in capsys.readouterr().err


def test_gpus_of_one_capability_are_compiled_for_once(monkeypatch, capsys):
    compiled = []

    def count_scan(assembler, name, implementation, dtype):
        compiled.append((name, implementation))
        if implementation == "pallas_triton":
            raise NotImplementedError("compute capability 8.6; supported: none")
        kernels = [f"selective_scan_{kernel}" for kernel in table._KERNELS]
        return [
            Cost(kernel, 250, 4 * i, 10.0, 1.0, 0.0, 5.0) for i, kernel in enumerate(kernels)
        ], 0

    convolution = [Cost(CONVOLUTION, 100, 0, 28.0, 2.0, 0.0, 10.0)], 0
    monkeypatch.setattr(gpu, "count_scan", count_scan)
    monkeypatch.setattr(gpu, "count_convolution", lambda *_: convolution)
    assert not any(table._print_gpus(NoAssembler(), ["a10", "rtx3090"], "bfloat16"))
    assert compiled == [("a10", "triton"), ("a10", "pallas_triton")]
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].startswith("| a10 | 8.6 | triton | 10.00 / 10.00 / 10.00 / 10.00 | 250 | 12 |")
    assert rows[1].startswith("| rtx3090 | 8.6 | triton |")
    assert (
        rows[2]
        == "| a10, rtx3090 | 8.6 | pallas_triton | compute capability 8.6; supported: none |"
    )


def test_what_does_not_compile_makes_the_command_fail(monkeypatch, capsys):
    def count_scan(*_):
        raise ValueError("no\nsuch | instruction")

    monkeypatch.setattr(gpu, "count_scan", count_scan)
    assert list(table._print_gpus(NoAssembler(), ["t4"], "bfloat16")) == [True, True]
    assert "ValueError: no such / instruction" in capsys.readouterr().out
