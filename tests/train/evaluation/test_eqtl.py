import json

import numpy as np
import pytest
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.train.evaluation import eqtl
from caduceus_jax.train.evaluation.eqtl import (
    embed_windows,
    features,
    find_windows,
    in_bucket,
    svm_auroc,
    window_spans,
)
from caduceus_jax.train.evaluation.eqtl_table import read_table
from tests import original
from tests.models import language_model

LENGTH, POOLED = 24, 7


@pytest.fixture
def genome(tmp_path):
    rng = np.random.default_rng(0)
    bases = "".join(rng.choice(list("ACGT"), 200))
    bases = bases[:100] + "N" * 20 + bases[120:]
    (tmp_path / "g.fa").write_text(f">chr1\n{bases}\n>chr9\n{bases[::-1]}\n")
    return Genome(tmp_path / "g.fa"), {"chr1": bases, "chr9": bases[::-1]}


def write_table(tmp_path, bases):
    """Rows of every kind; positions count from 1 in the file."""

    def row(chrom, pos, alt=None, ref=None, tissue="lung", label=1, distance=5.0):
        known = bases.get(chrom, "A" * 300)[pos - 1 : pos] or "A"
        other = "C" if known != "C" else "G"
        split = "test" if chrom == "chr9" else "train"
        fields = (chrom, pos, ref or known, alt or other, label, tissue, split, distance)
        return ",".join(map(str, fields))

    rows = [
        row("chr1", 50),
        row("chr1", 50, tissue="brain", label=0, distance=30_000),
        row("chr9", 150, distance=-40_000),
        row("chr1", 5),  # the window would begin before the contig
        row("chrX", 50),
        row("chr1", 110, ref="A", alt="C"),  # N in the genome
        row("chr1", 98),  # many N beside it
        row("chr1", 60, alt="AC"),
        row("chr1", 60, ref="T" if bases["chr1"][59] != "T" else "A"),
    ]
    header = "CHROM,POS,REF,ALT,label,tissue,split,distance_to_nearest_TSS"
    path = tmp_path / "table.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return read_table(path, [])


STATUS = ["ok", "ok", "ok", "crosses_edge", "unknown_chrom", "ref_mismatch", "too_many_n"]
STATUS += ["indel", "ref_mismatch"]


def test_every_row_has_a_status_and_a_variant_is_embedded_once(tmp_path, genome):
    reference, bases = genome
    table = write_table(tmp_path, bases)
    windows = find_windows(table, reference, LENGTH)
    assert windows.status.tolist() == STATUS
    assert len(windows.base) == 4  # two variants, two bases each
    np.testing.assert_array_equal(windows.pair[0], windows.pair[1])
    assert (windows.pair[3:] == -1).all()
    assert table.test.tolist() == [False, False, True] + [False] * 6
    assert table.distance[:3].tolist() == [5.0, 30_000.0, 40_000.0]


@pytest.mark.parametrize("rcps", [True, False])
@pytest.mark.parametrize("protocol", ["paper", "clean"])
def test_features_are_those_of_plain_numpy(tmp_path, genome, rcps, protocol):
    """Written as the original works: strands are strings or halves of channels, windows slices."""
    reference, bases = genome
    table = write_table(tmp_path, bases)
    model = language_model(d_model=8, n_layer=2, rcps=rcps)
    windows = find_windows(table, reference, LENGTH)
    states = embed_windows(
        model,
        cj.Tokenizer(),
        reference,
        windows,
        tmp_path / "states",
        length=LENGTH,
        pooled=POOLED,
        protocol=protocol,
    )
    found = features(states, table, windows, strands=(0, 1), protocol=protocol)

    config, tokenizer = model.config, cj.Tokenizer()
    tensors = cj.convert.to_torch(config, nnx.state(model, nnx.Param))

    def hidden(text):
        return original.last_hidden_state(config, tensors, tokenizer.encode(text)[None])[0][0]

    def means(text):
        middle = slice(LENGTH // 2 - POOLED // 2, LENGTH // 2 + POOLED // 2 + 1)
        if rcps:
            forward, other = np.split(hidden(text), 2, axis=-1)
            if protocol == "paper":
                other = other[::-1, ::-1]  # turned around, and then the same slice
            else:
                other = other[:, ::-1]
        else:
            complement = text.translate(str.maketrans("ACGT", "TGCA"))[::-1]
            forward, other = hidden(text), hidden(complement)[::-1]
        return (forward[middle].mean(axis=0) + other[middle].mean(axis=0)) / 2

    rows = []
    for i, tissue in ((0, 1), (1, 0), (2, 1)):
        sequence, at = bases[table.chrom[i]], int(table.position[i])
        text = sequence[at - LENGTH // 2 : at + LENGTH // 2]
        changed = text[: LENGTH // 2] + table.alt[i] + text[LENGTH // 2 + 1 :]
        coded = [tissue] if protocol == "paper" else [1 - tissue, tissue]
        rows.append(np.concatenate([means(text), means(changed), coded]))
    np.testing.assert_allclose(found, rows, atol=1e-5)


def test_what_is_embedded_is_not_embedded_again(tmp_path, genome, monkeypatch):
    reference, bases = genome
    windows = find_windows(write_table(tmp_path, bases), reference, LENGTH)
    model, tokenizer = language_model(d_model=8, n_layer=1), cj.Tokenizer()
    settings = {"length": LENGTH, "pooled": POOLED, "protocol": "clean"}
    place = tmp_path / "states"
    first = np.array(embed_windows(model, tokenizer, reference, windows, place, **settings))
    described = json.loads((place / "states.json").read_text())
    assert described["done"] == 4
    (place / "states.json").write_text(json.dumps({**described, "done": 0}))
    np.lib.format.open_memmap(place / "states.npy", mode="r+")[:] = 0
    again = embed_windows(model, tokenizer, reference, windows, place, **settings)
    np.testing.assert_array_equal(again, first)
    monkeypatch.setattr(eqtl, "run", None)
    embed_windows(model, tokenizer, reference, windows, place, **settings)
    with pytest.raises(cj.UserError, match="holds states of other windows"):
        embed_windows(
            model, tokenizer, reference, windows, place, **{**settings, "pooled": POOLED + 2}
        )


def test_the_windows_centre_and_the_paper_s_other_strand():
    np.testing.assert_array_equal(
        window_spans(10, 3, equivariant=True, protocol="clean"), [[4, 7], [4, 7]]
    )
    np.testing.assert_array_equal(
        window_spans(10, 3, equivariant=True, protocol="paper"), [[4, 7], [3, 6]]
    )
    np.testing.assert_array_equal(
        window_spans(10, 3, equivariant=False, protocol="paper"), [[4, 7], [4, 7]]
    )
    np.testing.assert_array_equal(
        window_spans(4, 99, equivariant=True, protocol="clean"), [[0, 4], [0, 4]]
    )


def test_both_ends_of_a_bucket_count_in_the_paper():
    distance = np.array([0, 29_999, 30_000, 100_000, np.nan])
    paper = [in_bucket(distance, name, "paper") for name in ("0 - 30 kb", "30 - 100 kb")]
    clean = [in_bucket(distance, name, "clean") for name in ("0 - 30 kb", "30 - 100 kb")]
    assert [b.tolist() for b in paper] == [
        [True, True, True, False, False],
        [False, False, True, True, False],
    ]
    assert [b.tolist() for b in clean] == [
        [True, True, False, False, False],
        [False, False, True, False, False],
    ]


@pytest.mark.parametrize("protocol", ["paper", "clean"])
def test_the_svm_finds_what_is_there_and_nothing_else(protocol):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(300, 4)).astype(np.float32)
    labels = (inputs[:, 0] > 0).astype(int)
    chance = rng.integers(2, size=300)
    settings = {"seeds": [1, 2], "protocol": protocol}
    found = svm_auroc((inputs[:200], labels[:200]), (inputs[200:], labels[200:]), **settings)
    assert found["mean"] > 0.9 and len(found["values"]) == 2
    assert (found["train"], found["test"]) == (200, 100)
    nothing = svm_auroc((inputs[:200], chance[:200]), (inputs[200:], chance[200:]), **settings)
    assert 0.35 < nothing["mean"] < 0.65
    single = svm_auroc((inputs[:9], np.ones(9, int)), (inputs, labels), **settings)
    assert np.isnan(single["mean"]) and single["values"] == []


def test_tables_that_cannot_be_used_are_refused(tmp_path):
    good = "CHROM,POS,ALT,label,split\nchr1,5,A,1,train\nchr1,6,A,0,test\n"
    cases = {
        "no column alt": good.replace("ALT", "A"),
        r"t.csv:2: pos is 'x'": good.replace("chr1,5", "chr1,x"),
        r"t.csv:3: label is 2": good.replace("A,0,test", "A,2,test"),
        "no rows are for testing": good.replace("test", "train"),
        "no column pos": good.replace("POS", "where"),
    }
    for message, text in cases.items():
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(cj.UserError, match=message):
            read_table(tmp_path / "t.csv", [])
    (tmp_path / "t.csv").write_text(good)
    table = read_table(tmp_path / "t.csv", [])
    assert table.position.tolist() == [4, 5] and table.ref is None
