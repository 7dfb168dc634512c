"""What a stage of a run opens before anything is allocated."""

import dataclasses
from collections import Counter

import jax
import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax.errors import UserError
from caduceus_jax.train.config import PretrainConfig
from caduceus_jax.train.data.config import DataConfig
from caduceus_jax.train.stage_run import _losses, set_up
from caduceus_jax.train.stages import stages_of


@pytest.fixture
def config(tmp_path):
    text = "".join(np.random.default_rng(0).choice(list("ACGT"), 1000))
    (tmp_path / "genome.fa").write_text(f">one\n{text}\n")
    return PretrainConfig(
        out=str(tmp_path / "run"),
        model=cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, rcps=True),
        data=DataConfig(fasta=str(tmp_path / "genome.fa")),
        batch_size=4 * jax.device_count(),
        max_length=32,
        steps=3,
    )


def test_windows_and_shapes_are_known_before_a_state_is_made(config, tmp_path):
    (stage,) = stages_of(config)
    work = set_up(stage, cj.Tokenizer(), tmp_path / "run")
    assert work.inputs.train_bases + work.inputs.held_out_bases == 1000
    assert len(work.inputs.train) == -(-work.inputs.train_bases // 32)
    state = jax.eval_shape(work.init)
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) > 0
    assert work.mesh.size == jax.device_count()


def test_a_batch_that_devices_cannot_share_is_refused(config, tmp_path):
    odd = dataclasses.replace(config, microbatches=3)
    with pytest.raises(UserError, match="cannot share evenly in 3 microbatches"):
        set_up(stages_of(odd)[0], cj.Tokenizer(), tmp_path / "run")


def test_losses_are_those_of_all_bases_and_of_each_genome_that_has_some():
    def part(predicted, nats, masked, masked_nats, right):
        names = ("predicted", "nats", "masked", "masked_nats", "masked_right")
        return Counter(dict(zip(names, (predicted, nats, masked, masked_nats, right), strict=True)))

    first, second, none = part(10, 12.0, 8, 10.0, 0), part(30, 24.0, 24, 21.0, 8), Counter()
    both = {
        "validation_loss": 36 / 40,
        "validation_masked_loss": 31 / 32,
        "validation_masked_accuracy": 8 / 32,
    }
    assert _losses(["a.fa", "b.fa", "c.fa"], [first, second, none]) == both | {
        "validation_masked_loss/a.fa": 10 / 8,
        "validation_masked_loss/b.fa": 21 / 24,
    }
    assert _losses(["a.fa", "a.fa"], [first, second]) == both | {
        "validation_masked_loss/a.fa (1)": 10 / 8,
        "validation_masked_loss/a.fa (2)": 21 / 24,
    }
    assert _losses(["a.fa"], [first])["validation_masked_loss"] == 10 / 8
