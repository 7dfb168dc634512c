import pytest

from caduceus_jax.kernels.ahead_of_time import devices, gpu

COMPILERS = not gpu.missing_packages() and devices.installed("jax_triton")


@pytest.mark.skipif(COMPILERS, reason="the compilers are here")
def test_without_the_compilers_it_names_them(capsys):
    assert gpu.main([]) == 2
    assert capsys.readouterr().err.startswith("needs jax_cuda13_plugin")


def test_an_unknown_gpu_is_refused(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--gpu", "v100"])
    assert "invalid choice: 'v100'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not COMPILERS, reason="needs jax-triton, triton and the plugin")
def test_nothing_spills_on_an_h200():
    import subprocess
    import sys

    command = [sys.executable, "-m", "caduceus_jax.kernels.ahead_of_time.gpu", "--quick"]
    subprocess.run(command, check=True)
