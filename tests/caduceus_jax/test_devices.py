import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from caduceus_jax.devices import sharing_sequences, use_cores
from caduceus_jax.kernels import causal_conv1d


@pytest.mark.parametrize(
    ("argument", "flags", "count"), [("", "", "all"), ("1", "", 1), ("", "=3", 3)]
)
def test_cores_become_devices(argument, flags, count):
    """In a process of its own: devices are chosen once."""
    code = f"from caduceus_jax.devices import use_cores; use_cores({argument}); "
    code += "import jax, os; print(jax.device_count()); print(os.environ['XLA_FLAGS'])"
    flags = f"--xla_force_host_platform_device_count{flags}" if flags else ""
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    words = [sys.executable, "-c", code]
    out = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout
    found, flags = out.splitlines()
    assert int(found) == (len(os.sched_getaffinity(0)) if count == "all" else count)
    # XLA reads the flags, or would have ended the process.
    assert "--xla_cpu_collective_call_terminate_timeout_seconds=3600" in flags.split()
    assert "--xla_cpu_prefer_vector_width=512" in flags.split()
    loops = "xla_cpu_small_while_loop_byte_threshold=8388608"
    assert f"--xla_backend_extra_options={loops}" in flags.split()


def test_the_loop_over_tokens_is_compiled_as_one():
    """In a process of its own, which reads the flags; a name that XLA does not know is ignored."""
    code = """if True:
        import sys
        from caduceus_jax.devices import use_cores
        if sys.argv[1:]:
            use_cores(1)
        import jax
        import jax.numpy as jnp
        def walk(decay, x):
            return jax.lax.scan(lambda h, y: (decay * h + y, h[0]), jnp.zeros(4096), x)
        compiled = jax.jit(walk).lower(jnp.ones(4096), jnp.ones((64, 4096))).compile()
        print(compiled.as_text().count("xla_cpu_small_call"))
    """
    environment = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    counts = []
    for words in ([], ["ours"]):
        words = [sys.executable, "-c", code, *words]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
        counts.append(int(done.stdout))
    assert counts == [0, 1]


def test_devices_that_are_in_use_stay():
    before = jax.devices()
    use_cores(1)
    assert jax.devices() == before


def test_all_devices_work_on_one_sequence():
    x, weight = jnp.ones((1, 5, 8)), jnp.ones((4, 8))
    with sharing_sequences():
        y = jax.jit(causal_conv1d)(x, weight)
    assert y.sharding.device_set == set(jax.local_devices())
    np.testing.assert_allclose(y, causal_conv1d(x, weight), rtol=1e-6)
