import jax
import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax.train.config import DataConfig, PretrainConfig
from caduceus_jax.train.data.inputs import Inputs
from caduceus_jax.train.sharding import make_mesh


@pytest.fixture
def mesh():
    return make_mesh(jax.devices()[:2])


def config(tmp_path, text, **data):
    (tmp_path / "g.fa").write_text(f">one\n{text}\n")
    return PretrainConfig(
        data=DataConfig(fasta=str(tmp_path / "g.fa"), **data), batch_size=4, max_length=32
    )


def test_windows_bases_and_batches_of_both_splits(tmp_path, mesh):
    text = "".join(np.random.default_rng(0).choice(list("ACGT"), 1000))
    inputs = Inputs(config(tmp_path, text), mesh, cj.Tokenizer(), tmp_path / "data")
    assert (inputs.train_bases, inputs.held_out_bases) == (900, 100)
    assert (len(inputs.train), len(inputs.held_out)) == (29, 4)
    batch = next(inputs.train_batches(0))
    assert batch["input_ids"].shape == (4, 32)
    third = next(inputs.train_batches(2))
    several = inputs.train_batches(0)
    for _ in range(3):
        batch = next(several)
    np.testing.assert_array_equal(batch["input_ids"], third["input_ids"])
    assert len(list(inputs.validation_batches())) == 1
    assert inputs.held_out_in_words() == "100 held-out bases"


def test_a_limit_on_validation_is_said(tmp_path, mesh):
    text = "ACGT" * 500
    limited = config(tmp_path, text, validation_windows=2)
    inputs = Inputs(limited, mesh, cj.Tokenizer(), tmp_path / "data")
    assert inputs.held_out_in_words() == ("200 held-out bases (the model: in 2 of their 7 windows)")


def test_a_position_is_one_in_these_data(tmp_path, mesh):
    inputs = Inputs(config(tmp_path, "ACGT" * 300), mesh, cj.Tokenizer(), tmp_path / "data")
    position = inputs.position(7)
    assert position["step"] == 7 and position["windows"] == len(inputs.train)
    inputs.check(position)
    with pytest.raises(cj.UserError, match="the checkpoint was made with 1 windows"):
        inputs.check(position | {"windows": 1})


def test_nothing_held_out_is_refused(tmp_path, mesh):
    with pytest.raises(cj.UserError, match="nothing is held out to validate on"):
        Inputs(config(tmp_path, "ACG"), mesh, cj.Tokenizer(), tmp_path / "data")
