import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from caduceus_jax.model.rcps import swap_strands


def test_a_wrong_shape_is_an_error_while_the_tests_run():
    """Shows that the shapes in annotations are checked at all."""
    assert swap_strands(jnp.zeros((2, 2, 5, 4))).shape == (2, 2, 5, 4)
    with pytest.raises(TypeCheckError):
        swap_strands(jnp.zeros((2, 5, 4)))
