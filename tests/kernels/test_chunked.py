"""What is particular to the portable scan: chunks, rows, and the memory that it does not take."""

import jax
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from caduceus_jax.kernels import Chunked, selective_scan, selective_scan_with_state
from tests.kernels.scan_cases import cast, example, numpy_scan, shapes
from tests.tolerances import SCAN_FP32


def largest(jaxpr):
    """Elements of the largest array in a program, its inner programs included."""
    sizes = [int(np.prod(v.aval.shape)) for e in jaxpr.eqns for v in e.outvars]
    inner = [largest(j) for e in jaxpr.eqns for j in jaxprs_in_params(e.params)]
    return max([*sizes, *inner], default=0)


@pytest.mark.parametrize("inner", ["sequential", "associative"])
@pytest.mark.parametrize("chunk", [1, 4, 37, 64])
def test_the_chunk_changes_nothing(chunk, inner):
    arguments = example(37, channels=5)
    options = Chunked(chunk, inner)
    y, state = selective_scan_with_state(**cast(arguments), implementation=options)
    for found, expected in zip((y, state), numpy_scan(arguments), strict=True):
        assert np.abs(found - expected).max() < SCAN_FP32 * np.abs(expected).max()


def test_more_rows_than_fit_side_by_side_are_cut_in_whole_groups():
    """1,024 channels fill a core's cache: three rows are walked over one after another."""
    arguments = example(3, batch=3, channels=1024, state=2)
    found = selective_scan(**cast(arguments), implementation=Chunked(2, "sequential"))
    expected, _ = numpy_scan(arguments)
    assert np.abs(found - expected).max() < SCAN_FP32 * np.abs(expected).max()


def test_neither_pass_holds_length_x_channels_x_states():
    length, channels, state = 1024, 64, 16
    arguments = shapes(1, length, channels, state, np.float32)

    def loss(arguments):
        return selective_scan(**arguments, implementation=Chunked(32, "sequential")).sum()

    program = jax.make_jaxpr(jax.value_and_grad(loss))(arguments).jaxpr
    kept = (length // 32) * channels * state  # the state that enters each chunk
    assert largest(program) <= max(length * channels, kept) < length * channels * state / 8
