"""Counted by hand for one literal shape: 2 sequences of 3 tokens, 4 channels, 5 states."""

import pytest

from caduceus_jax.costs import Shape, floors, mixer_counts, scan_counts

SHAPE = Shape(batch=2, length=3, channels=4, state=5)


def test_a_scan():
    counts = scan_counts(SHAPE, itemsize=2)
    # 24 numbers in each of u, delta, z, y; 30 in B and in C; 120 state elements.
    assert counts["forward"] == {
        "bytes": 2 * (24 + 24 + 24 + 30 + 30 + 24),
        "exponentials": 120 + 24 + 24 + 24,
        "flops": 600,
    }
    # The same arrays read, and the cotangent; gradients of u, delta, z, B, C written.
    assert counts["backward"] == {
        "bytes": 2 * (132 + 24 + 132),
        "exponentials": 192,
        "flops": 1560,
    }
    assert counts["forward_backward"] == {"bytes": 888, "exponentials": 384, "flops": 2160}


def test_a_mixer():
    counts = mixer_counts(SHAPE, itemsize=4, d_model=2, delta_rank=1)
    # For each of 6 tokens: 2 x 8 for in_proj, 4 x 2 for out_proj; in each of two directions
    # 4 x (1 + 5 + 5) to delta, B, C and 1 x 4 to delta.
    multiply_adds = 6 * (16 + 8 + 2 * (44 + 4))
    assert counts["forward"] == {
        "bytes": 4 * (12 + 12),
        # Twice: decay, softplus (two), SiLU of the convolution; once the gate.
        "exponentials": 2 * (120 + 3 * 24) + 24,
        "products": 2 * multiply_adds,
    }
    assert counts["backward"] == {
        "bytes": 4 * (12 + 12 + 12),
        "exponentials": 408,
        "products": 4 * multiply_adds,
    }


def test_floors():
    found = floors(
        {"bytes": 300, "exponentials": 50, "flops": 9}, {"bytes": 1e5, "exponentials": 1e4}
    )
    assert found == {"bytes": pytest.approx(3.0), "exponentials": pytest.approx(5.0)}
