"""Every mode: by hand, from either strand, however a variant is written, for indels too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from caduceus_jax import CaduceusConfig, CaduceusForMaskedLM, Tokenizer
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.score_variants import score_variants as scores
from caduceus_jax.genomics.variant import Variants
from tests.genomes import VCF_HEADER

LENGTH, CONTEXT, WINDOW = 120, 21, 7
COMPLEMENT = str.maketrans("ACGT", "TGCA")
COLUMNS = {"llr": ["llr"], "pll": ["pllr"], "embedding": ["l2", "cosine"]}
OPTIONS = {"context_length": CONTEXT, "window": WINDOW, "batch_size": 8}


@pytest.fixture(scope="module")
def sequence() -> str:
    drawn = "".join(np.random.default_rng(3).choice(list("ACGT"), LENGTH))
    # Repeats of one base and of two, for changes that can be written in several places.
    return drawn[:40] + "GAAAAAAC" + drawn[48:60] + "TGCACACAT" + drawn[69:]


def write_genome(path, sequence: str) -> Genome:
    path.write_text(f">1\n{sequence}\n")
    return Genome(path)


@pytest.fixture
def genome(tmp_path, sequence) -> Genome:
    return write_genome(tmp_path / "genome.fa", sequence)


@pytest.fixture(scope="module", params=[True, False], ids=["ps", "ph"])
def model(request) -> CaduceusForMaskedLM:
    config = CaduceusConfig(d_model=8, n_layer=1, rcps=request.param, initializer_range=1.0)
    return CaduceusForMaskedLM(config, rngs=nnx.Rngs(0))


def reverse_complement(bases: str) -> str:
    return bases.translate(COMPLEMENT)[::-1]


def make(rows: list[tuple[int, str, str]]) -> Variants:
    position, ref, alt = zip(*rows, strict=True)
    number = np.arange(len(rows))
    return Variants(number, number + 1, ["1"] * len(rows), np.array(position), [*ref], [*alt])


def anchored(sequence: str, start: int, ref: str, alt: str) -> tuple[int, str, str]:
    """A change as a VCF writes it: indels as far left as they go, with the base before."""
    while not (ref and alt) and start > 1 and sequence[start - 1] == (ref or alt)[-1]:
        ref, alt = (a and a[-1] + a[:-1] for a in (ref, alt))
        start -= 1
    if ref and alt:
        return start, ref, alt
    return start - 1, sequence[start - 1] + ref, sequence[start - 1] + alt


def other(bases: str) -> str:
    return "".join("ACGT"[("ACGT".index(base) + 1) % 4] for base in bases)


def changes(sequence: str, *, indels: bool) -> list[tuple[int, str, str]]:
    """(start, REF, ALT) without an anchor: of every length parity, in repeats and at both ends."""
    rows = [(p, sequence[p], other(sequence[p])) for p in (2, 30, 117)]
    rows += [(p, sequence[p : p + n], other(sequence[p : p + n])) for p in (25, 90) for n in (2, 3)]
    middle = sequence[81]
    rows.append((80, sequence[80:83], other(sequence[80]) + middle + other(sequence[82])))
    rows.append((84, sequence[84:88], other(sequence[84]) + sequence[85:87] + other(sequence[87])))
    if indels:
        rows += [(p, sequence[p : p + n], "") for p in (3, 30, 115) for n in (1, 2, 3, 4)]
        rows += [(p, "", bases) for p in (3, 31, 116) for bases in ("G", "CT", "GGA", "TTCA")]
        rows += [(41, "A", ""), (41, "AA", ""), (44, "", "A"), (44, "", "AAA")]
        rows += [(62, "CA", ""), (62, "", "CA"), (62, "CACA", ""), (61, "G", "")]
        rows += [(30, sequence[30:32], other(sequence[30])), (33, sequence[33], "ACGTA")]
    return rows


@pytest.mark.parametrize(
    ("mode", "edge"),
    [
        pytest.param(mode, edge, marks=() if i % 2 == j else pytest.mark.slow)
        for i, mode in enumerate(COLUMNS)
        for j, edge in enumerate(("pad", "shift"))
    ],
)
def test_scores_are_the_same_on_the_other_strand(tmp_path, genome, sequence, model, mode, edge):
    rows = changes(sequence, indels=mode != "llr")
    reverse = reverse_complement(sequence)
    forward = [anchored(sequence, *row) for row in rows]
    backward = [
        anchored(reverse, LENGTH - p - len(ref), reverse_complement(ref), reverse_complement(alt))
        for p, ref, alt in rows
    ]
    options = {**OPTIONS, "mode": mode, "edge": edge, "max_ref_mismatch": 0.0}
    one = scores(model, make(forward), genome, **options)
    two = scores(model, make(backward), write_genome(tmp_path / "r.fa", reverse), **options)
    assert one["status"].to_list() == two["status"].to_list()
    assert (one["status"] == "ok").sum() > 0.8 * len(rows)
    for name in COLUMNS[mode]:
        a, b = (frame[name].fill_null(9e9).to_numpy() for frame in (one, two))
        np.testing.assert_allclose(a, b, atol=1e-5)
        assert len(np.unique(a.round(7))) > 0.6 * len(a)


@pytest.mark.parametrize("mode", ["pll", "embedding"])
def test_all_ways_to_write_an_indel_score_alike(genome, sequence, model, mode):
    """One A of GAAAAAAC, deleted at each place and with each anchor; then a CA inserted."""
    deletions = [(p, sequence[p : p + 2], sequence[p]) for p in range(40, 46)]
    deletions += [(40, "GAAA", "GAA"), (45, "AAC", "AC"), (40, "GAAAAAAC", "GAAAAAC")]
    insertions = [(61, "G", "GCA"), (62, "C", "CAC"), (61, "GCACA", "GCACACA"), (67, "A", "ACA")]
    frame = scores(model, make(deletions + insertions), genome, mode=mode, **OPTIONS)
    for name in COLUMNS[mode]:
        values = frame[name].to_list()
        assert len(set(values[: len(deletions)])) == 1
        assert len(set(values[len(deletions) :])) == 1


@jax.jit
def predict(model, ids):
    return model(ids).logits


def log_probabilities(model, bases: str, *masked: int) -> np.ndarray:
    """(masks, 4), both strands: from the public model, one sequence at a time."""
    tokenizer = Tokenizer()
    strands = []
    for sequence, positions in (
        (bases, masked),
        (reverse_complement(bases), [len(bases) - 1 - p for p in masked]),
    ):
        ids = tokenizer.encode(sequence)
        ids[list(positions)] = tokenizer.mask_id
        logits = np.asarray(predict(model, ids[None])[0], np.float64)[list(positions)]
        strands.append(logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True)))
    return (strands[0][:, 7:11] + strands[1][:, 7:11][:, ::-1]) / 2


def test_several_changed_bases_are_masked_together(genome, sequence, model):
    """Bases 81 and 83 of 80 to 84 change: the window of 21 is 72 to 93, its index 10 base 82."""
    ref = sequence[80:85]
    alt = ref[0] + other(ref[1]) + ref[2] + other(ref[3]) + ref[4]
    (found,) = scores(model, make([(80, ref, alt)]), genome, **OPTIONS)["llr"]
    expected = log_probabilities(model, sequence[72:93], 9, 11)
    picked = [
        expected[i, "ACGT".index(alt[at])] - expected[i, "ACGT".index(ref[at])]
        for i, at in enumerate((1, 3))
    ]
    assert found == pytest.approx(sum(picked), abs=1e-5)


def pseudo_log_likelihood(model, bases: str) -> float:
    at = range(CONTEXT // 2 - WINDOW // 2, CONTEXT // 2 + WINDOW // 2 + 1)
    return float(sum(log_probabilities(model, bases, i)[0, "ACGT".index(bases[i])] for i in at))


@pytest.mark.parametrize(("ref", "alt"), [(1, 1), (3, 1), (1, 3), (3, 3)])
def test_pseudo_log_likelihood_ratio_by_hand(genome, sequence, model, ref, alt):
    """Alleles of odd lengths around base 31: ten minus a half of them more on both sides."""
    start = 31 - ref // 2
    old = sequence[start : start + ref]
    new = {1: other(old[ref // 2]), 3: "".join(map(other, (old + old + old)[:3]))}[alt]
    (found,) = scores(model, make([(start, old, new)]), genome, mode="pll", **OPTIONS)["pllr"]
    left, right = sequence[:start], sequence[start + ref :]
    # No base of the alleles is shared at their ends, so that all of them are the change.
    assert old[0] != new[0] and old[-1] != new[-1]
    sides = [(CONTEXT - len(allele)) // 2 for allele in (old, new)]
    cut = [left[-n:] + a + right[:n] for n, a in zip(sides, (old, new), strict=True)]
    expected = pseudo_log_likelihood(model, cut[1]) - pseudo_log_likelihood(model, cut[0])
    assert found == pytest.approx(expected, abs=1e-5)


def test_embedding_distances_by_hand(genome, sequence):
    """One insertion of three bases; states of both strands from the backbone."""
    config = CaduceusConfig(d_model=8, n_layer=1, rcps=True, initializer_range=1.0)
    model = CaduceusForMaskedLM(config, rngs=nnx.Rngs(0))
    new = sequence[31] + "".join(map(other, sequence[31:33] + sequence[32]))
    frame = scores(model, make([(31, sequence[31], new)]), genome, mode="embedding", **OPTIONS)
    # The middle of REF, which has no base, is between bases 31 and 32: 11 and 10 or 10 and 11.
    vectors = []
    for bases in (
        sequence[22:32] + sequence[32:43],
        sequence[21:32] + sequence[32:42],
        sequence[23:32] + new[1:] + sequence[32:41],
    ):
        hidden, _ = model.caduceus(jnp.asarray(Tokenizer().encode(bases))[None])
        vectors.append(np.asarray(hidden, np.float64)[0, :, 7:14].mean(axis=(0, 1)))
    distances = [np.linalg.norm(vectors[2] - v) for v in vectors[:2]]
    cosines = [
        1 - vectors[2] @ v / np.linalg.norm(v) / np.linalg.norm(vectors[2]) for v in vectors[:2]
    ]
    around = sequence[21:43]
    side = 1 if around < reverse_complement(around) else 0
    assert frame["l2"][0] == pytest.approx(distances[side], abs=1e-5)
    assert frame["cosine"][0] == pytest.approx(cosines[side], abs=1e-5)
    assert abs(distances[0] - distances[1]) > 1e-3


@pytest.mark.parametrize("mode", ["pll", "embedding"])
def test_statuses_of_what_is_too_long_or_unknown(tmp_path, sequence, model, mode):
    genome = write_genome(tmp_path / "n.fa", sequence[:69] + "N" + sequence[70:])
    rows = [
        (30, sequence[30], sequence[30] + "ACGTACG"[:WINDOW]),
        (30, sequence[30], sequence[30] + "ACGTACGT"),
        (30, sequence[30:39], sequence[30]),
        (69, "N", "A"),
        (66, sequence[66], sequence[66] + other(sequence[67]) + "GG"),
        (90, sequence[90], sequence[90]),
        (2, sequence[2], "<DEL>"),
        (30, other(sequence[30]) + sequence[31], other(sequence[30])),
    ]
    frame = scores(model, make(rows), genome, mode=mode, **OPTIONS, max_ref_mismatch=0.5)
    unknown = "ambiguous" if mode == "pll" else "ok"
    assert frame["status"].to_list() == [
        *("ok", "too_long", "too_long", "ambiguous", unknown, "ok", "symbolic", "ref_mismatch")
    ]
    for name in COLUMNS[mode]:
        assert frame[name].is_null().to_list() == [s != "ok" for s in frame["status"].to_list()]
        assert frame[name][5] == 0


def vcf(path, rows):
    records = "".join(f"1\t{p + 1}\t.\t{r}\t{a}\t.\t.\t{info}\n" for p, r, a, info in rows)
    path.write_text(VCF_HEADER + records)
    return str(path)


def structural(sequence, start, end):
    """<DEL>, <DUP> and <INV> of these bases, and <INS> before them; and the same in bases."""
    pos, first, unit = start - 1, sequence[start - 1], sequence[start:end]
    long = {"DEL": "", "DUP": unit + unit, "INV": reverse_complement(unit)}
    size = end - start
    infos = {"DEL": f"END={end}", "DUP": f"SVLEN={size}", "INV": f"END={end};SVLEN={size}"}
    symbols = [(pos, first, f"<{kind}>", info) for kind, info in infos.items()]
    spelt = [(pos, first + unit, first + new) for new in long.values()]
    bases = "GATTACA"[:size]
    symbols.append((pos, first, "<INS>", f"SEQ={bases}"))
    return symbols, [*spelt, (pos, first, first + bases)]


# In repeats of one base and of two, and outside them.
EVENTS = [(41, 43), (62, 66), (30, 37), (85, 86)]


@pytest.mark.parametrize("mode", ["pll", "embedding"])
def test_structural_variants_are_scored_as_in_bases(tmp_path, genome, sequence, model, mode):
    both = [structural(sequence, *event) for event in EVENTS]
    symbols, spelt = ([row for pair in both for row in pair[i]] for i in (0, 1))
    # REF is unknown where a caller does not look it up.
    path = vcf(
        tmp_path / "a.vcf", [(p, "N" if i % 3 else r, *x) for i, (p, r, *x) in enumerate(symbols)]
    )
    one = scores(model, path, genome, mode=mode, **OPTIONS)
    two = scores(model, make(spelt), genome, mode=mode, **OPTIONS)
    assert one["status"].to_list() == two["status"].to_list() == ["ok"] * 16
    assert one["alt"].to_list() == ["<DEL>", "<DUP>", "<INV>", "<INS>"] * 4
    for name in COLUMNS[mode]:
        assert one[name].to_list() == two[name].to_list()
        assert np.count_nonzero(one[name].to_numpy()) > 12


@pytest.mark.parametrize("mode", ["pll", "embedding"])
def test_structural_variants_do_not_depend_on_the_strand(tmp_path, genome, sequence, model, mode):
    turned = reverse_complement(sequence)
    here, there = [], []
    for start, end in EVENTS:
        here += structural(sequence, start, end)[0][:3]
        there += structural(turned, LENGTH - end, LENGTH - start)[0][:3]
        bases = "GATTACA"[: end - start]
        here.append((start - 1, sequence[start - 1], "<INS>", f"SVINSSEQ={bases}"))
        before = LENGTH - start - 1
        insert = reverse_complement(bases)
        there.append((before, turned[before], "<INS>", f"SVINSSEQ={insert}"))
    one = scores(model, vcf(tmp_path / "a.vcf", here), genome, mode=mode, **OPTIONS)
    mirror = write_genome(tmp_path / "turned.fa", turned)
    two = scores(model, vcf(tmp_path / "b.vcf", there), mirror, mode=mode, **OPTIONS)
    assert one["status"].to_list() == two["status"].to_list() == ["ok"] * 16
    for name in COLUMNS[mode]:
        np.testing.assert_allclose(one[name], two[name], atol=1e-5)


def test_statuses_of_structural_variants(tmp_path, sequence, model):
    genome = write_genome(tmp_path / "n.fa", sequence[:69] + "N" + sequence[70:])
    table = [
        ((30, sequence[30], "<DEL>", "END=38"), "ok", "indel"),
        ((30, sequence[30], "<DEL>", "END=39"), "too_long", "indel"),  # than the window
        ((30, sequence[30], "<DEL>", "END=99"), "too_long", "indel"),  # than the context
        ((30, sequence[30], "<DUP>", "SVLEN=8"), "too_long", "indel"),
        ((30, sequence[30], "<INV>", "SVLEN=8"), "too_long", "indel"),
        ((30, sequence[30], "<INS>", "SEQ=ACGTACGT"), "too_long", "indel"),
        ((30, sequence[30], "<INV>", "SVLEN=4"), "ok", "indel"),
        ((30, other(sequence[30]), "<DEL>", "END=35"), "ref_mismatch", "indel"),
        ((30, other(sequence[30]), "<DEL>", "END=99"), "ref_mismatch", "indel"),
        ((66, sequence[66], "<DEL>", "END=71"), "ambiguous", "indel"),
        ((30, sequence[30], "<INS>", "SEQ=RY"), "ambiguous", "indel"),
        ((30, sequence[30], "<DEL>", "END=121"), "symbolic", "symbolic"),  # than the contig
        ((30, sequence[30], "<DEL>", "END=30"), "symbolic", "symbolic"),
        ((30, sequence[30], "<DEL>", "."), "symbolic", "symbolic"),
        ((30, sequence[30], "<INS>", "END=31"), "symbolic", "symbolic"),
        ((30, sequence[30], "<CNV>", "END=35"), "symbolic", "symbolic"),
        ((30, sequence[30], f"{sequence[30]}[1:9[", "END=35"), "symbolic", "symbolic"),
        ((-1, "N", "<DEL>", "END=5"), "out_of_range", "out_of_range"),
        ((120, "N", "<DEL>", "END=125"), "out_of_range", "out_of_range"),
        ((30, sequence[30], "*", "END=35"), "spanning_deletion", "spanning_deletion"),
    ]
    rows, statuses, masked = zip(*table, strict=True)
    path = vcf(tmp_path / "a.vcf", [(30, sequence[30], other(sequence[30]), "END=31"), *rows])
    options = {**OPTIONS, "max_ref_mismatch": 0.5}
    found = scores(model, path, genome, mode="embedding", **options)
    assert found["status"].to_list() == ["ok", *statuses]
    found = scores(model, path, genome, mode="llr", **options)
    assert found["status"].to_list() == ["ok", *masked]
