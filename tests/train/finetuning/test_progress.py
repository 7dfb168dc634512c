import math

import jax.numpy as jnp
import numpy as np

from caduceus_jax.train.finetuning.progress import Best, Progress, forget, load, save


def test_a_seed_goes_on_where_it_was(tmp_path):
    state = {"a": jnp.arange(3.0), "b": (jnp.int32(4), jnp.ones((2, 2)))}
    best = Best(0.5, 2, {"a": np.arange(3.0) + 1}, {"auroc": math.nan, "accuracy": 0.5})
    progress = Progress(3, 7, [0.1, 0.2], 1.5, [{"epoch": 1}], state, best, 12.5)
    assert load(tmp_path, state, {"a": jnp.zeros(3)}) is None
    save(tmp_path, progress)
    found = load(
        tmp_path, {"a": jnp.zeros(3), "b": (jnp.int32(0), jnp.zeros((2, 2)))}, best.trained
    )
    assert found[:5] == progress[:5] and found.seconds == 12.5
    np.testing.assert_array_equal(found.state["b"][1], state["b"][1])
    assert found.state["b"][0].dtype == jnp.int32 and int(found.state["b"][0]) == 4
    assert found.best[:2] == (0.5, 2) and found.best.scores["accuracy"] == 0.5
    assert math.isnan(found.best.scores["auroc"])
    np.testing.assert_array_equal(found.best.trained["a"], [1, 2, 3])
    save(tmp_path, progress._replace(best=None))
    assert load(tmp_path, state, best.trained).best is None
    forget(tmp_path)
    assert list(tmp_path.iterdir()) == []
