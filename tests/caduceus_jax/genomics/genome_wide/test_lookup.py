"""Scores from a store: those of a computed run, for every kind of row."""

import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax import UserError
from caduceus_jax.cli.main import main
from caduceus_jax.genomics.genome_wide.store import ScoreStore
from caduceus_jax.inference import blocks
from tests.genomes import other
from tests.models import language_model

OPTIONS = {"context_length": 31, "max_ref_mismatch": 1.0}


def rows(genome):
    """Every substitution of a stretch with both ends; and every other kind of row."""
    chr1, b = genome.fetch("chr1"), genome.fetch("b")
    single = [
        (name, p + 1, text[p], other(text[p], step))
        for name, text, places in (("chr1", chr1, (0, 1, 118, 119, 122, 599)), ("b", b, (0, 199)))
        for p in places
        for step in (1, 2, 3)
    ]
    return [
        *single,
        ("1", 301, chr1[300].lower(), other(chr1[300])),
        ("chr1", 301, chr1[300:303], chr1[300] + other(chr1[301]) + chr1[302]),
        ("chr1", 301, chr1[300], chr1[300]),
        ("chr1", 311, chr1[310:312], other(chr1[310]) + other(chr1[311])),
        ("chr1", 321, chr1[320], chr1[320] + "A"),
        ("chr1", 121, "N", "A"),
        ("chr1", 331, other(chr1[330]), chr1[330]),
        ("chr1", 341, chr1[340], "<DEL>"),
        ("chr1", 351, chr1[350], None),
        ("z", 5, "A", "C"),
        ("chr1", 9999, "A", "C"),
    ]


def test_rows_are_those_of_a_computed_run(model, desk, genome):
    variants = rows(genome)
    computed = cj.score_variants(model, variants, genome, **OPTIONS)
    found = cj.score_variants(model, variants, genome, scores=desk / "a.zarr", **OPTIONS)
    assert found.drop("llr").equals(computed.drop("llr"))
    assert found["llr"].is_null().equals(computed["llr"].is_null())
    store = ScoreStore(desk / "a.zarr")
    for (name, pos, ref, alt), status, one, two in zip(
        variants, found["status"], found["llr"], computed["llr"], strict=True
    ):
        if status != "ok":
            continue
        if len(ref) == 1:
            values = store.fetch(name, pos - 1, pos)[0]
            a, r = (values["ACGT".index(base.upper())] for base in (alt, ref))
            assert one == a - r
            # Half of float16's spacing, relative, of both.
            assert abs(one - two) <= (abs(a) + abs(r)) * 2**-11 + 2e-6
        else:
            assert abs(one - two) <= 2e-2


def test_nothing_is_computed_that_is_stored(model, desk, genome, monkeypatch):
    chr1 = genome.fetch("chr1")
    variants = [("chr1", p + 1, chr1[p], other(chr1[p])) for p in (50, 300)]
    variants.append(("chr1", 61, chr1[60], chr1[60] + "A"))
    real = blocks.run_batches
    monkeypatch.setattr(
        blocks, "run_batches", lambda f, m, batches, **o: real(f, m, _none(batches), **o)
    )
    found = cj.score_variants(model, variants, genome, scores=desk / "a.zarr", **OPTIONS)
    assert found["status"].to_list() == ["ok", "ok", "indel"]


def _none(batches):
    assert list(batches) == []
    return iter(())


def test_a_store_of_something_else_is_refused(tmp_path, model, desk, genome):
    store, variants = desk / "a.zarr", [("chr1", 51, genome.fetch("chr1", 50, 51), "N")]
    run = {"scores": store, "context_length": 31}
    with pytest.raises(UserError, match="context_length is 1023, and .* was computed with 31"):
        cj.score_variants(model, variants, genome, scores=store)
    with pytest.raises(UserError, match="edge is shift, and .* was computed with pad"):
        cj.score_variants(model, variants, genome, edge="shift", **run)
    # What this model does by default.
    cj.score_variants(model, variants, genome, rc_mode="equivariant", **run)
    with pytest.raises(UserError, match="scores is for mode llr, and mode is pll"):
        cj.score_variants(model, variants, genome, "pll", window=5, **run)
    another = language_model(d_model=16, n_layer=1, initializer_range=0.5, rcps=False)
    with pytest.raises(UserError, match="a.zarr has the scores of another model"):
        cj.score_variants(another, variants, genome, **run)
    text = {name: genome.fetch(name) for name in genome.names}
    text["chr1"] = other(text["chr1"][0]) + text["chr1"][1:]
    path = tmp_path / "c.fa"
    path.write_text("".join(f">{name}\n{bases}\n" for name, bases in text.items()))
    changed = [("chr1", 51, text["chr1"][50], other(text["chr1"][50]))]
    with pytest.raises(UserError, match="a.zarr has the scores of another genome than .*c.fa"):
        cj.score_variants(model, changed, path, **run)


def test_what_a_store_lacks_is_computed(tmp_path, model, desk, genome):
    words = [str(desk / "lm"), "chr1:1-100", "--genome", str(genome.path)]
    out = ["--out", str(tmp_path / "part.zarr"), "--context-length", "31"]
    assert main(["likelihood", *words, *out]) == 0
    chr1, b = genome.fetch("chr1"), genome.fetch("b")
    variants = [("chr1", p + 1, chr1[p], other(chr1[p])) for p in (50, 99, 100, 400)]
    variants.append(("b", 41, b[40], other(b[40])))
    computed = cj.score_variants(model, variants, genome, **OPTIONS)["llr"].to_numpy()
    found = cj.score_variants(model, variants, genome, scores=tmp_path / "part.zarr", **OPTIONS)
    assert found["status"].to_list() == ["ok"] * 5
    error = np.abs(found["llr"].to_numpy() - computed)
    assert error[2:].max() <= 1e-6 and 0 < error[:2].max() <= 2e-2
