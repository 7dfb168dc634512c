import jax.numpy as jnp

from caduceus_jax.train.run.profile import Profile


def test_the_steps_that_are_asked_for_are_traced_and_said(tmp_path):
    said = []
    with Profile(range(2, 4), tmp_path / "profile", said.append) as profile:
        for step in range(1, 6):
            profile.before(step, jnp.ones(3))
            assert bool(said) == (step > 3)
            jnp.ones(3).sum().block_until_ready()
    assert len(said) == 1 and said[0].startswith("traced steps 2 to 3: open")
    assert len(list((tmp_path / "profile").rglob("perfetto_trace.json.gz"))) == 1


def test_nothing_is_written_where_nothing_is_asked_for(tmp_path):
    with Profile(range(0), tmp_path / "profile", print) as profile:
        for step in (1, 2):
            profile.before(step, jnp.ones(3))
    assert not list(tmp_path.iterdir())


def test_a_trace_that_is_open_at_the_end_is_closed(tmp_path):
    said = []
    with Profile(range(1, 100), tmp_path / "profile", said.append) as profile:
        profile.before(1, jnp.ones(3))
    assert len(said) == 1
