import jax
import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax.train.config import PretrainConfig
from caduceus_jax.train.data.config import DataConfig
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
    ((genome, held),) = inputs.validation_batches()
    assert genome == 0 and held["input_ids"].shape == (4, 32)
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


def test_each_genome_is_validated_on_its_own(tmp_path, mesh):
    rng = np.random.default_rng(0)
    names = []
    for name in ("a", "b"):
        (tmp_path / f"{name}.fa").write_text(
            f">{name}\n{''.join(rng.choice(list('ACGT'), 1000))}\n"
        )
        names.append(str(tmp_path / f"{name}.fa"))
    several = PretrainConfig(data=DataConfig(fasta=names), batch_size=4, max_length=32)
    inputs = Inputs(several, mesh, cj.Tokenizer(), tmp_path / "data")
    assert [genome for genome, _ in inputs.validation_batches()] == [0, 1]


def test_windows_that_are_mostly_padding_are_said(tmp_path, mesh, caplog):
    contigs = "".join(f">c{i}\n{'ACGT' * 5}\n" for i in range(40))
    (tmp_path / "g.fa").write_text(contigs)
    short = PretrainConfig(
        data=DataConfig(fasta=str(tmp_path / "g.fa"), min_contig=1), batch_size=4, max_length=64
    )
    Inputs(short, mesh, cj.Tokenizer(), tmp_path / "data")
    assert "69% of the tokens of training windows are padding" in caplog.text
