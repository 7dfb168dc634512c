from caduceus_jax import UserError


def test_user_errors_are_value_errors():
    assert issubclass(UserError, ValueError)
