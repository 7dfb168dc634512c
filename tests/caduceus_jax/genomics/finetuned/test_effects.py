"""Changes of outputs by variants: those of predictions for both windows, on either strand."""

import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax.model.files.task import TaskDescription
from tests.genomes import genome, other, reverse_complement, write_vcf
from tests.models import SMALL, classifier, kinds

LENGTH = 20
BASES = "".join(np.random.default_rng(0).choice(list("ACGT"), 120))
VARIANTS = [
    ("chr1", 51, BASES[50], other(BASES[50])),
    ("chr1", 61, BASES[60:63], other(BASES[60]) + BASES[61] + other(BASES[62])),
    ("chr1", 71, BASES[70], BASES[70] + "GATTACA"),
    ("chr1", 81, BASES[80:86], BASES[80]),
    ("chr1", 91, BASES[90], "<DEL>"),
    ("chr1", 3, BASES[2], other(BASES[2])),
    ("chr1", 31, BASES[30], BASES[30] + "ACGT" * 6),
]


@pytest.fixture
def reference(tmp_path):
    return genome(tmp_path / "a.fa", {"chr1": BASES})


def test_a_substitution_is_the_difference_of_two_predictions(reference):
    m = cj.Pretrained(classifier(rc_mode="posthoc", **SMALL), cj.Tokenizer())
    length = LENGTH + 1
    found = cj.score_variants(m, VARIANTS[:1], reference, context_length=length)
    window = BASES[40:61]
    changed = window[:10] + other(BASES[50]) + window[11:]
    ref, alt = cj.predict(m, [window, changed]).select("^p_.*$").to_numpy().astype(float)
    given = found.select("^difference_p_.*$").to_numpy()[0]
    np.testing.assert_allclose(given, alt - ref, atol=1e-6)
    odds = np.log(alt / (1 - alt)) - np.log(ref / (1 - ref))
    np.testing.assert_allclose(found.select("^log_odds.*$").to_numpy()[0], odds, atol=1e-5)


def test_an_insertion_is_in_the_middle_of_a_window_of_the_same_length(reference):
    m = cj.Pretrained(kinds()["classifier"], cj.Tokenizer())
    found = cj.score_variants(
        m, [("chr1", 71, BASES[70], BASES[70] + "GG")], reference, context_length=22
    )
    assert BASES[70:72] == "CC" and found["status"][0] == "ok"
    windows = [BASES[60:82], BASES[61:71] + "GG" + BASES[71:81]]
    ref, alt = cj.predict(m, windows).select("^p_.*$").to_numpy().astype(float)
    np.testing.assert_allclose(found.select("^difference.*$").to_numpy()[0], alt - ref, atol=1e-6)


def test_tracks_change_by_their_mean_and_their_largest_bin(reference):
    model = kinds()["tracks"]
    m = cj.Pretrained(model, cj.Tokenizer())
    found = cj.score_variants(m, [VARIANTS[0]], reference, context_length=20)
    # An even window has a base more on the side that comes first in the alphabet.
    read = BASES[40:61]
    left = read[:10] + BASES[50] + read[11:] < reverse_complement(read)
    windows = []
    for base in (BASES[50], other(BASES[50])):
        text = BASES[:50] + base + BASES[51:]
        windows.append(m.tokenizer.encode(text[40:60] if left else text[41:61]))
    ref, alt = np.asarray(model(np.stack(windows)).logits, np.float64)
    np.testing.assert_allclose(found["difference_LABEL_0"][0], (alt - ref)[:, 0].mean(), atol=1e-5)
    change = (alt - ref)[:, 1]
    largest = change[np.abs(change).argmax()]
    np.testing.assert_allclose(found["largest_difference_LABEL_1"][0], largest, atol=1e-5)


@pytest.mark.parametrize("length", [LENGTH, LENGTH + 4])
@pytest.mark.parametrize("kind", ["classifier", "tracks"])
def test_both_strands_change_alike_whatever_the_length(reference, tmp_path, kind, length):
    m = cj.Pretrained(kinds()[kind], cj.Tokenizer())
    turned = genome(tmp_path / "b.fa", {"chr1": reverse_complement(BASES)})
    here, there = [], []
    for chrom, pos, ref, alt in VARIANTS[:2]:
        here.append((chrom, pos, ref, alt))
        first = len(BASES) - (pos - 1) - len(ref) + 1
        there.append((chrom, first, reverse_complement(ref), reverse_complement(alt)))
    # Insertions and deletions are written with the base before them, on each strand.
    here.append(VARIANTS[2])
    base = reverse_complement(BASES[71])
    there.append(("chr1", len(BASES) - 71, base, base + reverse_complement("GATTACA")))
    one = cj.score_variants(m, here, reference, context_length=length)
    two = cj.score_variants(m, there, turned, context_length=length)
    assert one["status"].to_list() == two["status"].to_list() == ["ok"] * 3
    columns = one.columns[5:]
    np.testing.assert_allclose(one.select(columns), two.select(columns), atol=1e-5)


def test_statuses_and_order_do_not_depend_on_the_batch(reference):
    m = cj.Pretrained(kinds()["classifier"], cj.Tokenizer())
    found = cj.score_variants(m, VARIANTS, reference, context_length=LENGTH, edge="drop")
    statuses = ["ok", "ok", "ok", "ok", "symbolic", "crosses_edge", "too_long"]
    assert found["status"].to_list() == statuses
    assert found["log_odds_ratio_LABEL_2"].is_null().to_list() == [s != "ok" for s in statuses]
    single = [
        cj.score_variants(m, [v], reference, context_length=LENGTH, edge="drop", batch_size=1)
        for v in VARIANTS[:4]
    ]
    each = np.concatenate([frame.to_numpy()[:, 5:] for frame in single]).astype(float)
    np.testing.assert_allclose(found.to_numpy()[:4, 5:].astype(float), each, atol=1e-6)


def test_models_that_were_padded_are_padded(reference):
    model = classifier(rc_mode="posthoc", **SMALL)
    model.task = TaskDescription(max_length=32, padded=True, rc_mode="posthoc")
    m = cj.Pretrained(model, cj.Tokenizer())
    found = cj.score_variants(m, VARIANTS[:1], reference, context_length=21)
    window = BASES[40:61]
    changed = window[:10] + other(BASES[50]) + window[11:]
    ref, alt = cj.predict(m, [window, changed]).select("^p_.*$").to_numpy().astype(float)
    given = found.select("^difference_p_.*$").to_numpy()[0]
    np.testing.assert_allclose(given, alt - ref, atol=1e-6)


def test_structural_variants_change_outputs_as_in_bases(reference, tmp_path):
    m = cj.Pretrained(kinds()["classifier"], cj.Tokenizer())
    first, unit = BASES[80], BASES[81:91]
    infos = {"DEL": "END=91", "DUP": "SVLEN=10", "INV": "END=91", "INS": "SEQ=GATTACA"}
    lines = [f"chr1\t81\t.\t{first}\t<{kind}>\t.\t.\t{info}" for kind, info in infos.items()]
    news = ["", unit + unit, reverse_complement(unit)]
    spelt = [("chr1", 81, first + unit, first + new) for new in news]
    spelt.append(("chr1", 81, first, first + "GATTACA"))
    lines.append(f"chr1\t81\t.\t{first}\t<DEL>\t.\t.\tSVLEN=-{LENGTH + 1}")
    spelt.append(("chr1", 81, BASES[80 : 82 + LENGTH], first))
    one = cj.score_variants(
        m, str(write_vcf(tmp_path / "a.vcf", *lines)), reference, context_length=LENGTH
    )
    two = cj.score_variants(m, spelt, reference, context_length=LENGTH)
    assert one["status"].to_list() == ["ok"] * 4 + ["too_long"]
    assert one.drop("ref", "alt").equals(two.drop("ref", "alt"))
