"""Arrays for TF-MoDISco, and outputs that cannot hold what they are given."""

import pathlib

import numpy as np
import polars
import pytest

from caduceus_jax import UserError
from caduceus_jax.genomics.reference.sequences import of_bases
from caduceus_jax.genomics.scoring.attribution_files import (
    check_attribution_files,
    one_hot_path,
    write_attributions,
)
from caduceus_jax.genomics.scoring.attributions import Attributed
from caduceus_jax.inference.blocks import Part

FOUR = np.array([[1.0, 2.0, 3.0, -6.0], [np.nan] * 4, [0.0, 3.0, -4.0, 1.0]], np.float32)
SEQUENCES = of_bases(["a", "b"], [b"GNC", b"ACG"])


def test_arrays_are_of_sequences_channels_and_bases(tmp_path):
    out = tmp_path / "x.npz"
    ones = [Attributed(0, np.array([2, -1, 1]), FOUR, 0.0, 0.0)]
    parts = [Part(range(1), ones), Part(range(1, 2), [ones[0]._replace(row=1)])]
    made = polars.DataFrame({"pos": [1]})
    table = tmp_path / "x.tsv"
    write_attributions(
        {out: ".npz", table: ".tsv"},
        parts,
        SEQUENCES,
        None,
        table=lambda rows, found: made[: len(found)],
        draw=lambda frame, path, ending: None,
    )
    contributions, there = np.load(out)["arr_0"], np.load(one_hot_path(out))["arr_0"]
    assert contributions.shape == there.shape == (2, 4, 3)
    assert contributions[0, :, 1].tolist() == there[0, :, 1].tolist() == [0, 0, 0, 0]
    assert contributions[0, :, 2].tolist() == [0.0, 3.0, -4.0, 1.0]
    assert there[1].argmax(0)[[0, 2]].tolist() == [2, 1]
    assert table.read_text() == "pos\n1\n1\n"


def test_outputs_are_checked_before_the_work(tmp_path):
    def check(name, sequences=SEQUENCES):
        path = tmp_path / name
        check_attribution_files({path: path.suffix}, sequences, None, 2)

    check("a.npz")
    check("a.parquet")
    assert one_hot_path(pathlib.Path("x/a.npz")) == pathlib.Path("x/a.one_hot.npz")
    with pytest.raises(UserError, match="there are sequences of 1 and of 2 bases: pass `context_"):
        check("a.npz", of_bases(["a", "b"], [b"AC", b"A"]))
    with pytest.raises(UserError, match="is a track on a genome: pass `genome`"):
        check("a.bw")
    with pytest.raises(UserError, match="a picture shows one sequence, and there are 2"):
        check("a.png")
    with pytest.raises(UserError, match="at most 2 bases, and the sequence has 3"):
        check("a.svg", of_bases(["a"], [b"ACG"]))
