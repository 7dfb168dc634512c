import jax
import jax.numpy as jnp
import numpy as np
import optax

from caduceus_jax import Tokenizer
from caduceus_jax.train.checkpoint import Checkpoints
from caduceus_jax.train.config import DataConfig
from caduceus_jax.train.data import Block, Windows, train_dataset
from caduceus_jax.train.sharding import abstract, make_mesh
from caduceus_jax.train.step import TrainState, init_state


def batches():
    letters = np.frombuffer(b"ACGTAACCGGTTACAC", np.uint8)
    windows = Windows(
        {"c": letters}, [Block("c", 0, 16)], length=4, stride=1, tokenizer=Tokenizer()
    )
    return iter(train_dataset(windows, DataConfig(mask_probability=0.5), seed=1, batch_size=4))


def init():
    params = {"w": jnp.arange(6.0).reshape(2, 3)}
    return init_state(params, optax.adam(1e-3), jax.random.PRNGKey(5))


def at(step):
    state = init()
    return TrainState(
        jnp.asarray(step, jnp.int32),
        jax.tree.map(lambda x: x + step, state.params),
        state.opt_state,
        state.rng,
    )


def test_state_and_place_in_the_data_come_back(tmp_path):
    ahead = batches()
    for _ in range(3):
        next(ahead)
    with Checkpoints(tmp_path / "new" / "folder", keep=2) as checkpoints:
        assert checkpoints.latest is None
        checkpoints.save(at(3), ahead, {"seed": 1})
    following = [next(ahead) for _ in range(4)]

    fresh = batches()
    mesh = make_mesh()
    with Checkpoints(tmp_path / "new" / "folder", keep=2) as checkpoints:
        assert checkpoints.latest == 3
        state = checkpoints.restore(abstract(init, mesh), fresh)
    for stored, expected in zip(jax.tree.leaves(state), jax.tree.leaves(at(3)), strict=True):
        np.testing.assert_array_equal(stored, expected)
        assert stored.dtype == expected.dtype
        assert len(stored.sharding.device_set) == mesh.size
    for one, other in zip(following, fresh, strict=False):
        np.testing.assert_array_equal(one["input_ids"], other["input_ids"])
        np.testing.assert_array_equal(one["labels"], other["labels"])


def test_the_newest_are_kept_and_a_step_is_saved_once(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2, 2, 3):
            checkpoints.save(at(step), batches(), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]
