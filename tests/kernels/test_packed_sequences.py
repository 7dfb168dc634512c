"""Several sequences in one row, and one sequence in several calls."""

import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from caduceus_jax.kernels import (
    Chunked,
    MosaicTPU,
    PallasTriton,
    Reference,
    Triton,
    causal_conv1d,
    causal_conv1d_with_state,
    selective_scan_with_state,
    sequence_parallel,
)
from caduceus_jax.kernels.options import Options
from tests.kernels.scan_cases import cast, example
from tests.tolerances import SCAN_BF16, SCAN_FP32, relative_error

# Segments of many lengths, of one token too; a number comes again after another one.
SEGMENTS = np.array(
    [
        [4] * 3 + [9] * 1 + [2] * 8 + [4] * 2 + [0] * 5 + [-1] * 4,
        [1] * 11 + [2] * 1 + [1] * 1 + [3] * 10,
    ]
)
LENGTHY = {"u", "delta", "B", "C", "z", "x"}
IMPLEMENTATIONS = {
    "reference": Reference(),
    "chunked": Chunked(4),
    "one chunk": Chunked(32),
    "associative": Chunked(4, "associative"),
    "pallas_triton": PallasTriton(8),
    "mosaic_tpu": MosaicTPU(),
}
KINDS = list[Any](IMPLEMENTATIONS)
# Several chunks of the fused kernels, the last one ragged.
FUSED: dict[str, Options] = {
    "pallas_triton": PallasTriton(64),
    "mosaic_tpu": MosaicTPU(chunk_length=128),
}
FUSED_KINDS = list[Any](FUSED)
if os.environ.get("TRITON_INTERPRET") == "1":
    IMPLEMENTATIONS["triton"], FUSED["triton"] = Triton(8), Triton(64)
    for kinds in (KINDS, FUSED_KINDS):
        kinds.append(pytest.param("triton", marks=pytest.mark.triton))


# The other direction is in the tests of scans.
OTHER_DIRECTION = [
    pytest.param(False, id="forward", marks=pytest.mark.slow),
    pytest.param(True, id="reverse"),
]


def pieces(ids, reverse):
    """Starts and ends of the segments of a row, in walking order."""
    cuts = [0, *(np.flatnonzero(np.diff(ids)) + 1), len(ids)]
    found = list(zip(cuts[:-1], cuts[1:], strict=True))
    return found[::-1] if reverse else found


def one_by_one(operation, arguments, reverse):
    """What separate calls give: results side by side, and the last final state of each row."""
    rows, finals = [], []
    for row, ids in enumerate(SEGMENTS):
        found = {}
        for number, (start, end) in enumerate(pieces(ids, reverse)):
            cut = {}
            for name, x in arguments.items():
                if name in LENGTHY:
                    cut[name] = x[row : row + 1, start:end]
                elif name != "initial_state":
                    cut[name] = x
                elif number == 0:
                    cut[name] = x[row : row + 1]
            found[start], last = operation(**cut, reverse=reverse)
        rows.append(jnp.concatenate([found[start] for start in sorted(found)], axis=1))
        finals.append(last)
    return jnp.concatenate(rows), jnp.concatenate(finals)


def value_and_gradients(run, arguments):
    """Results, and gradients of a sum in which every element counts differently."""

    def total(arguments):
        results = run(arguments)
        weights = [jnp.cos(jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape) for x in results]
        return sum(jnp.sum(x * y) for x, y in zip(results, weights, strict=True)), results

    function = jax.jit(jax.grad(total, has_aux=True))
    gradients, results = function(arguments)
    return results, gradients


@functools.cache
def expected_scan(dtype, reverse):
    arguments = cast(example(23, batch=2, channels=5, state=4), dtype)
    operation = functools.partial(selective_scan_with_state, implementation=Reference())
    run = functools.partial(one_by_one, operation, reverse=reverse)
    return arguments, value_and_gradients(run, arguments)


@pytest.mark.parametrize(
    ("dtype", "reverse"),
    [
        pytest.param(jnp.float32, False, id="float32-forward"),
        pytest.param(jnp.float32, True, id="float32-reverse", marks=pytest.mark.slow),
        pytest.param(jnp.bfloat16, False, id="bfloat16-forward", marks=pytest.mark.slow),
        pytest.param(jnp.bfloat16, True, id="bfloat16-reverse"),
    ],
)
@pytest.mark.parametrize("implementation", KINDS)
def test_a_packed_scan_is_separate_scans(implementation, dtype, reverse):
    arguments, expected = expected_scan(dtype, reverse)

    def run(arguments):
        return selective_scan_with_state(
            **arguments,
            reverse=reverse,
            segment_ids=jnp.asarray(SEGMENTS),
            implementation=IMPLEMENTATIONS[implementation],
        )

    found = value_and_gradients(run, arguments)
    tolerance = SCAN_FP32 if dtype == jnp.float32 else SCAN_BF16
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert relative_error(one, other) < tolerance


@functools.cache
def expected_convolution(reverse):
    rng = np.random.default_rng(0)
    shapes = {"x": (2, 23, 5), "weight": (4, 5), "bias": (5,), "initial_state": (2, 3, 5)}
    arguments = {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in shapes.items()}
    separate = functools.partial(one_by_one, causal_conv1d_with_state, reverse=reverse)
    return arguments, value_and_gradients(separate, arguments)


# The forms of the chunked scan have one convolution.
OF_CONVOLUTIONS = [x for x in KINDS if x not in ("one chunk", "associative")]


@pytest.mark.parametrize("reverse", OTHER_DIRECTION)
@pytest.mark.parametrize("implementation", OF_CONVOLUTIONS)
def test_a_packed_convolution_is_separate_convolutions(implementation, reverse):
    arguments, expected = expected_convolution(reverse)

    def run(arguments):
        return causal_conv1d_with_state(
            **arguments,
            reverse=reverse,
            segment_ids=jnp.asarray(SEGMENTS),
            implementation=IMPLEMENTATIONS[implementation],
        )

    found = value_and_gradients(run, arguments)
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert relative_error(one, other) < SCAN_FP32


@pytest.mark.parametrize(
    ("width", "silu", "channels", "reverse"),
    [
        (4, True, 130, True),
        (9, False, 3, False),
        pytest.param(4, True, 130, False, marks=pytest.mark.slow),
        pytest.param(9, False, 3, True, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("implementation", FUSED_KINDS)
def test_segments_of_several_chunks_of_a_convolution(
    implementation, width, silu, channels, reverse
):
    """Boundaries at every distance from the edges of chunks; a block that is not full; groups."""
    rng = np.random.default_rng(0)
    shapes = {"x": (2, 261, channels), "weight": (2, width, channels), "bias": (2, channels)}
    arguments = {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in shapes.items()}

    def run(arguments, implementation):
        how = {"reverse": reverse, "silu": silu, "segment_ids": numbered(261)}
        return causal_conv1d_with_state(**arguments, **how, implementation=implementation)

    found, expected = (
        value_and_gradients(functools.partial(run, implementation=i), arguments)
        for i in (FUSED[implementation], "reference")
    )
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert relative_error(one, other) < SCAN_FP32


def test_nothing_of_one_segment_reaches_another():
    """Not even what is not a number."""
    arguments = cast(example(23, batch=2, channels=2, state=2))
    ids = jnp.asarray(SEGMENTS)
    other = ids != ids[:, :1]
    poisoned = arguments | {"u": jnp.where(other[..., None], jnp.inf, arguments["u"])}
    clean, dirty = (
        selective_scan_with_state(**a, segment_ids=ids, reverse=False)[0]
        for a in (arguments, poisoned)
    )
    first = np.argmax(np.asarray(other), axis=1)
    for row in range(2):
        np.testing.assert_array_equal(dirty[row, : first[row]], clean[row, : first[row]])


def test_one_segment_is_no_segments():
    arguments = cast(example(9))
    ids = jnp.full((2, 9), 5)
    for reverse in (False, True):
        found, expected = (
            selective_scan_with_state(**arguments, reverse=reverse, segment_ids=x)
            for x in (ids, None)
        )
        for one, other in zip(found, expected, strict=True):
            assert relative_error(one, other) < SCAN_FP32


def test_several_directions_groups_and_examples():
    """Groups, many rows, and `jax.vmap` over the segments alone."""
    arguments = cast(example(23, batch=4, channels=300, state=2, groups=2))
    ids = jnp.concatenate([jnp.asarray(SEGMENTS)] * 2)

    def run(ids, implementation):
        return selective_scan_with_state(
            **arguments, segment_ids=ids, reverse=True, implementation=implementation
        )

    examples = jnp.stack([ids, jnp.zeros_like(ids)])
    found = jax.jit(jax.vmap(lambda ids: run(ids, Chunked())))(examples)
    for i in range(2):
        expected = run(examples[i], Reference())
        for one, other in zip(found, expected, strict=True):
            assert relative_error(one[i], other) < SCAN_FP32


@pytest.mark.parametrize(
    "implementation", [pytest.param("pallas_triton", marks=pytest.mark.slow), "mosaic_tpu"]
)
def test_transformations_of_fused_kernels_with_segments(implementation):
    """Many numberings at once, forward mode, and a second derivative."""
    arguments = cast(example(9, batch=1, channels=3, state=2))
    ids = jnp.asarray([SEGMENTS[:1, :9], SEGMENTS[1:, 3:12]])

    def slopes(implementation):
        def total(a, ids):
            given = arguments | {"A": a, "segment_ids": ids, "implementation": implementation}
            return jnp.sum(selective_scan_with_state(**given)[0] ** 2)

        a = arguments["A"]
        many = jax.vmap(jax.value_and_grad(total), (None, 0))(a, ids)
        second = jax.jvp(lambda a: jax.grad(total)(a, ids[0]), (a,), (a,))
        return many, jax.jvp(lambda a: total(a, ids[1]), (a,), (a,)), second

    quick = {"xla_backend_optimization_level": 0}
    run = jax.jit(slopes, static_argnums=0, compiler_options=quick)
    for one, other in zip(
        *map(jax.tree.leaves, (run(implementation), run("reference"))), strict=True
    ):
        assert relative_error(one, other) < SCAN_FP32


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint32, list])
def test_integers_of_any_kind_number_segments(dtype):
    ids = SEGMENTS[:, :9] + 1  # from 0 on
    given = ids.tolist() if dtype is list else ids.astype(dtype)
    arguments = cast(example(9))
    found, expected = (
        selective_scan_with_state(**arguments, segment_ids=x)[0] for x in (given, jnp.asarray(ids))
    )
    np.testing.assert_array_equal(found, expected)
    x, weight = arguments["u"], jnp.ones((4, 12))
    found, expected = (causal_conv1d(x, weight, segment_ids=y) for y in (given, jnp.asarray(ids)))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.usefixtures("shapes_unchecked")
def test_wrong_segments_are_refused():
    arguments = cast(example(9))
    for ids, message in (
        (jnp.zeros((2, 9)), "^segment_ids has dtype float32; it must be integers$"),
        (
            jnp.zeros((2, 8), int),
            r"^segment_ids has shape \(2, 8\); it is \(batch, length\), \(",
        ),
        ([[1], [1, 2]], "^segment_ids is list; it must be an array$"),
        ("ab", "^segment_ids is str; it must be an array$"),
        ({}, "^segment_ids is dict; it must be an array$"),
        (jnp.zeros((2, 9), bool), "^segment_ids has dtype bool; it must be integers$"),
        (jnp.zeros(9, int), r"^segment_ids has shape \(9,\); it is \(batch, length\), \(2, 9\)$"),
    ):
        with pytest.raises(ValueError, match=message):
            selective_scan_with_state(**arguments, segment_ids=ids)
        with pytest.raises(ValueError, match=message):
            causal_conv1d(jnp.ones((2, 9, 3)), jnp.ones((4, 3)), segment_ids=ids)
    with pytest.raises(
        ValueError, match=r"^initial_state has shape \(2, 4, 3\); .* it is \(2, 3, 3\)"
    ):
        causal_conv1d(jnp.ones((2, 9, 3)), jnp.ones((4, 3)), initial_state=jnp.ones((2, 4, 3)))


def numbered(length):
    """Two rows of segments, which begin within chunks, with them, and right before they end."""
    cuts = np.array([[1, 64, 127, 128, 140, 191, 256, 257], [30, 31, 32, 33, 63, 65, 129, 199]])
    return jnp.asarray((np.arange(length)[None, :, None] >= cuts[:, None]).sum(-1), jnp.int32)


@functools.cache
def expected_of_chunks(bare, reverse):
    length = 261
    arguments = cast(example(length, batch=4, channels=6, state=2, groups=2))
    if bare:
        arguments = {name: arguments[name] for name in ("u", "delta", "A", "B", "C")}
    ids = jnp.tile(numbered(length), (2, 1))
    how = {"segment_ids": ids, "reverse": reverse}
    return arguments, how, value_and_gradients(arguments_to_scan(Reference(), how), arguments)


def arguments_to_scan(implementation, how):
    return lambda x: selective_scan_with_state(**x, **how, implementation=implementation)


@pytest.mark.parametrize(
    ("bare", "reverse"),
    [
        pytest.param(False, True, id="whole-reverse"),
        pytest.param(True, False, id="bare-forward"),
        pytest.param(False, False, id="whole-forward", marks=pytest.mark.slow),
        pytest.param(True, True, id="bare-reverse", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("implementation", FUSED_KINDS)
def test_segments_of_several_chunks(implementation, bare, reverse):
    """Without skip, gate, bias and initial state too; groups."""
    arguments, how, expected = expected_of_chunks(bare, reverse)
    found = value_and_gradients(arguments_to_scan(FUSED[implementation], how), arguments)
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert relative_error(one, other) < SCAN_FP32


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_convolution_in_pieces(width, reverse):
    """Pieces of fewer tokens than the filter has too."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 17, 3)), jnp.float32)
    weight = jnp.cos(jnp.arange(width * 3.0)).reshape(width, 3)
    whole, last = causal_conv1d_with_state(x, weight, reverse=reverse)
    cuts = [0, 1, 2, 4, 11, 17]
    spans = list(zip(cuts[:-1], cuts[1:], strict=True))
    state, found = None, {}
    for start, end in spans[::-1] if reverse else spans:
        found[start], state = causal_conv1d_with_state(
            x[:, start:end], weight, reverse=reverse, initial_state=state
        )
    found = jnp.concatenate([found[start] for start in sorted(found)], axis=1)
    assert relative_error(found, whole) < SCAN_FP32
    np.testing.assert_array_equal(state, last)
    expected = x[:, : width - 1] if reverse else x[:, 17 - (width - 1) :]
    np.testing.assert_array_equal(state, expected)


def mixer(x, states, parameters, reverse):
    """The two operations of a Mamba mixer on a piece of a sequence, and what the next one needs."""
    weight, a, maps = parameters
    conv_state, scan_state = states
    u, conv_state = causal_conv1d_with_state(x, weight, reverse=reverse, initial_state=conv_state)
    b, c = u @ maps[0], u @ maps[1]
    y, scan_state = selective_scan_with_state(
        u, u @ maps[2] - 4, a, b, c, reverse=reverse, initial_state=scan_state
    )
    return y, (conv_state, scan_state)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_a_contig_streams_through_in_pieces(reverse):
    """131,072 tokens in pieces of 4,096 give the numbers of one pass, in either direction."""
    length, piece, channels, state = 131_072, 4_096, 4, 2
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    x = draw(1, length, channels)
    maps = (draw(channels, state), draw(channels, state), draw(channels, channels))
    parameters = draw(4, channels), -jnp.exp(draw(channels, state)), maps
    run = jax.jit(functools.partial(mixer, reverse=reverse))
    nothing = jnp.zeros((1, 3, channels)), jnp.zeros((1, channels, state))
    whole, final = run(x, nothing, parameters)

    def step(states, piece):
        y, states = mixer(piece, states, parameters, reverse)
        return states, y

    cut = x.reshape(1, length // piece, piece, channels).swapaxes(0, 1)
    states, found = jax.jit(lambda: jax.lax.scan(step, nothing, cut, reverse=reverse))()
    assert relative_error(found.swapaxes(0, 1).reshape(whole.shape), whole) < SCAN_FP32
    for one, other in zip(states, final, strict=True):
        assert relative_error(one, other) < SCAN_FP32


def test_shards_of_the_length_refuse_segments():
    arguments = cast(example(8, batch=1, channels=2, state=2))
    with pytest.raises(NotImplementedError, match="segment_ids .* supported: whole sequences"):
        sequence_parallel.selective_scan(
            **arguments, axis_name="sequence", segment_ids=jnp.zeros((1, 8), int)
        )
    with pytest.raises(NotImplementedError, match="segment_ids .* supported: whole sequences"):
        sequence_parallel.causal_conv1d(
            jnp.ones((1, 8, 2)),
            jnp.ones((4, 2)),
            axis_name="sequence",
            segment_ids=jnp.zeros((1, 8), int),
        )
