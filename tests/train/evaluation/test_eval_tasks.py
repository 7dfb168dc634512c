import numpy as np
import pytest
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.train.evaluation.eval_tasks import EvalTasks

CONFIG = cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, rcps=True)


@pytest.fixture
def task(tmp_path):
    """A task that every model solves: one class is of A and C, the other of A and G."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "mine"
    folder.mkdir()
    for part, count in (("train", 60), ("test", 20)):
        rows = [
            "".join(rng.choice(list(letters), 24)) + f",{label}"
            for label, letters in (("c", "AAAC"), ("cg", "ACCG"))
            for _ in range(count // 2)
        ]
        (folder / f"{part}.csv").write_text("\n".join(["sequence,label", *rows]) + "\n")
    return str(folder)


def test_a_probe_of_the_model_in_training_is_scored_on_the_test_part(task):
    params = nnx.state(cj.CaduceusForMaskedLM(CONFIG, rngs=nnx.Rngs(0)), nnx.Param)
    found = EvalTasks([task]).scores(CONFIG, params, cj.Tokenizer())
    assert set(found) == {"probe_accuracy/mine"}
    assert found["probe_accuracy/mine"] > 0.9
    # Without tasks no parameter is looked at, nor collected from other processes.
    assert EvalTasks([]).scores(CONFIG, nnx.State({}), cj.Tokenizer()) == {}


def test_the_shipped_task_has_its_tables():
    (given,) = EvalTasks(["splice"])._tasks.values()
    assert given.task.classes == ("acceptor", "donor", "neither")
    sizes = [len(part.sequences) for part in (given.train, given.validation, given.task.test)]
    assert sizes == [2252, 333, 601]


def test_what_is_not_a_task_is_refused(task, tmp_path):
    with pytest.raises(cj.UserError, match="eval_tasks has nothing, which is not splice or a fold"):
        EvalTasks(["nothing"])
    with pytest.raises(cj.UserError, match="two tasks named mine"):
        EvalTasks([task, task])
    (tmp_path / "empty").mkdir()
    with pytest.raises(cj.UserError, match="has no train table"):
        EvalTasks([str(tmp_path / "empty")])
