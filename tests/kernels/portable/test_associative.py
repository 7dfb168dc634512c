"""A chunk by associative scans, and its gradients."""

import pytest

from caduceus_jax.kernels.portable import associative
from tests.kernels.portable.walks import check


@pytest.mark.parametrize("reverse", [False, True])
def test_values_and_gradients_of_a_chunk(reverse):
    check(associative, reverse)
