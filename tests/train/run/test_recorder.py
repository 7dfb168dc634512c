import pytest

from caduceus_jax import CaduceusConfig
from caduceus_jax.train.config import PretrainConfig
from caduceus_jax.train.guards import TooManySkipped
from caduceus_jax.train.run.due import Due
from caduceus_jax.train.run.goodput import TimeLedger
from caduceus_jax.train.run.recorder import Recorder

CONFIG = PretrainConfig(
    model=CaduceusConfig(d_model=8, n_layer=1, rcps=True), batch_size=4, log_every=2, max_skipped=2
)
NOTHING = Due(False, False, False, None, False)
EVALUATE = Due(True, True, False, None, False)


class Kept:
    """A report that keeps what it is told."""

    def __init__(self):
        self.advanced, self.rows = [], {}

    def advance(self, step):
        self.advanced.append(step)

    def write(self, step, row):
        self.rows[step] = dict(row)


@pytest.fixture
def kept():
    return Kept()


@pytest.fixture
def recorder(kept):
    return Recorder(CONFIG, kept, TimeLedger(0.0, now=lambda: 1.0), windows=10, first_step=4)


def row(loss, skipped=0, in_a_row=0):
    return {"loss": loss, "skipped": skipped, "skipped_in_a_row": in_a_row}


def never():
    raise AssertionError("nothing is validated")


def test_a_step_is_written_where_it_is_due_with_its_own_metrics(recorder, kept):
    finished = [(5, row(0.5)), (6, row(0.6)), (7, row(0.7, skipped=1, in_a_row=1))]
    recorder.record(finished, NOTHING, 9, never, never)
    assert kept.advanced == [5, 6, 7]
    assert {step: found["loss"] for step, found in kept.rows.items()} == {6: 0.6, 7: 0.7}
    assert kept.rows[6]["examples"] == 24 and kept.rows[6]["epochs"] == 2.4
    assert {"tokens_per_second", "goodput"} < set(kept.rows[6])
    assert recorder.skipped_in_a_row == 1


def test_only_the_newest_step_gets_what_its_parameters_are_validated_to(recorder, kept):
    finished = [(6, row(0.6)), (7, row(0.7))]
    recorder.record(finished, EVALUATE, 7, lambda: {"validation_loss": 1.25}, never)
    assert "validation_loss" not in kept.rows[6]
    assert kept.rows[7]["validation_loss"] == 1.25 and kept.rows[7]["loss"] == 0.7


def test_too_many_skipped_steps_end_the_run(recorder, kept):
    finished = [(7, row(9.0, 1, 1)), (8, row(9.0, 1, 2))]
    sentence = "2 steps in a row .* last good step was 6; .*checkpoint of step 4 in runs/pretrain"
    with pytest.raises(TooManySkipped, match=sentence):
        recorder.record(finished, NOTHING, 9, never, lambda: (6, 4))
    assert set(kept.rows) == {7, 8}
