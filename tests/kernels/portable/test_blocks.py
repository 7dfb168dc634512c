"""How rows and channels are cut into blocks, and that the cut changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from caduceus_jax.devices import use_cores
from caduceus_jax.kernels import Chunked
from caduceus_jax.kernels.portable.blocks import LOOPS_ARE_FUNCTIONS, Blocks, cached, whole
from caduceus_jax.kernels.scan_inputs import check
from tests.kernels.scan_cases import assert_close, cast, compiled, example, in_float64
from tests.tolerances import SCAN_FP32


@pytest.fixture
def in_functions(monkeypatch):
    """As in a command: XLA compiles each loop over tokens as one function."""
    monkeypatch.setenv("XLA_FLAGS", f"--xla_backend_extra_options={LOOPS_ARE_FUNCTIONS}=8388608")


def test_a_block_has_whole_vectors_of_one_row_where_that_is_possible(in_functions):
    def sizes(channels):
        return cached(4, channels)[2:]

    assert {channels: sizes(channels) for channels in (16, 64, 128, 192, 236, 256, 480, 512)} == {
        16: (4, 16),
        64: (1, 64),
        128: (1, 128),
        192: (1, 96),
        236: (1, 236),
        256: (1, 128),
        480: (1, 96),
        512: (1, 128),
    }


def test_there_is_one_block_where_each_operation_is_started_by_itself(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert cached(4, 512) == whole(4, 512) == Blocks(4, 512, 4, 512)


def test_commands_compile_loops_as_functions(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    jax.devices()  # which stay as they are
    use_cores()
    assert cached(4, 512).block_channels == 128


def test_cut_and_join():
    blocks, x = Blocks(2, 6, 1, 3), jnp.arange(2 * 5 * 6).reshape(2, 5, 6)
    cut = blocks.cut(x)
    assert cut.shape == (4, 1, 5, 3)
    for i, (row, channel) in enumerate([(0, 0), (0, 3), (1, 0), (1, 3)]):
        np.testing.assert_array_equal(cut[i, 0], x[row, :, channel : channel + 3])
    np.testing.assert_array_equal(blocks.join(cut), x)
    np.testing.assert_array_equal(whole(2, 6).join(whole(2, 6).cut(x)), x)
    # A block of all rows has all groups, however few they are.
    by_channels = Blocks(4, 6, 4, 3)
    assert by_channels.cut(x).shape == (2, 2, 5, 3)
    np.testing.assert_array_equal(by_channels.join(by_channels.cut(x)), x)


def test_parameters_of_a_row_are_those_of_its_group():
    inputs = check(**cast(example(3, batch=4, channels=6, state=2, groups=2)))
    blocks = Blocks(4, 6, 1, 3)
    parameters = blocks.parameters(inputs)
    assert parameters.row.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert parameters.channel.tolist() == [0, 3] * 4
    for i, (row, channel) in enumerate(zip(parameters.row, parameters.channel, strict=True)):
        part = np.s_[row % 2, channel : channel + 3]
        np.testing.assert_array_equal(parameters.a[i, 0], inputs.a[part].T)
        assert parameters.d_skip is not None and inputs.d_skip is not None
        np.testing.assert_array_equal(parameters.d_skip[i, 0, 0], inputs.d_skip[part])
    ones = jax.tree.map(jnp.ones_like, parameters.a)
    assert blocks.by_group(ones, inputs).tolist() == np.full((2, 2, 6), 2.0).tolist()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("groups", [None, 2])
def test_values_and_gradients_in_blocks(in_functions, groups, reverse):
    """Of two blocks per row, several chunks and a ragged end."""
    arguments = example(11, batch=4, channels=256, state=3, groups=groups)
    options = {"reverse": reverse, "delta_softplus": True}

    # A function of its own: blocks are chosen when it is traced.
    run = compiled.__wrapped__(Chunked(4, "sequential"), **options)
    states_of_blocks = "tensor<8x1x3x128xf32>"
    assert states_of_blocks in run.lower(cast(arguments)).as_text()
    assert_close(run(cast(arguments)), in_float64(arguments, **options), SCAN_FP32)
