"""Variant scores: right by hand, the same from either strand, a row for every ALT."""

import gzip

import jax.numpy as jnp
import numpy as np
import polars
import pytest
from flax import nnx

from caduceus_jax import CaduceusConfig, CaduceusForMaskedLM, Tokenizer, UserError
from caduceus_jax.genomics.files.table_files import table_writer
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.reference.inputs import as_variants
from caduceus_jax.genomics.score_variants import score_variants, scored_table
from caduceus_jax.inference import blocks
from tests.genomes import COMPLEMENT, drawn, other
from tests.genomes import genome as write_genome
from tests.models import classifier, language_model
from tests.variants import make, score

LENGTHS = {"chr1": 200, "chr2": 90}
CONTEXT = 31


@pytest.fixture(scope="module")
def sequences() -> dict[str, str]:
    return drawn(LENGTHS, unknown=120)


@pytest.fixture
def genome(tmp_path, sequences) -> Genome:
    return write_genome(tmp_path / "genome.fa", sequences)


def build(rcps: bool) -> CaduceusForMaskedLM:
    return language_model(d_model=16, n_layer=2, rcps=rcps, initializer_range=1.0)


@pytest.fixture(scope="module")
def ps() -> CaduceusForMaskedLM:
    return build(rcps=True)


def snvs(sequences: dict[str, str], *positions: int) -> list[tuple[str, int, str, str]]:
    chr1 = sequences["chr1"]
    return [("chr1", p, chr1[p], other(chr1[p])) for p in positions]


def test_scores_by_hand(genome, sequences):
    """h = E[MASK] / rms = sqrt(2) (0.6, 0.8); logits h (E[b] + E[complement of b])."""
    model = CaduceusForMaskedLM(CaduceusConfig(d_model=2, n_layer=1, rcps=True), rngs=nnx.Rngs(0))
    kernel = model.caduceus.layers.mixer.out_proj.kernel
    kernel[...] = jnp.zeros_like(kernel[...])
    rows, vectors = jnp.array([3, 7, 8, 10]), jnp.array([(3, 4), (1, 0), (0, 1), (2, 0)])
    model.caduceus.embedding[...] = jnp.zeros((16, 2)).at[rows].set(vectors)
    chr1 = sequences["chr1"]
    at = {base: chr1.index(base) for base in "ACGT"}
    changes = ["AC", "CA", "AT", "CG", "GT"]
    variants = make(*(("chr1", at[ref], ref, alt) for ref, alt in changes))
    scored = score(model, variants, genome, context_length=5, batch_size=4)
    # A and T: 3 * 0.6 = 1.8; C and G: 0.8.
    np.testing.assert_allclose(scored.llr, 2**0.5 * np.array([-1, 1, 0, 0, 1]), atol=1e-5)


def test_scores_are_the_log_ratio_at_the_masked_position(genome, sequences, ps):
    """From the public model, on a window cut by hand: base 15 of 31 is the variant."""
    chr1 = sequences["chr1"]
    scored = score(ps, make(*snvs(sequences, 50)), genome, context_length=31)
    ids = Tokenizer().encode(chr1[35:66])
    assert chr1[35:66][15] == chr1[50]
    ids[15] = 3
    logits = np.asarray(ps(jnp.asarray(ids)[None]).logits[0, 15])
    token = {base: i for base, i in zip("ACGT", (7, 8, 9, 10), strict=True)}
    expected = logits[token[other(chr1[50])]] - logits[token[chr1[50]]]
    np.testing.assert_allclose(scored.llr, [expected], atol=1e-5)


@pytest.mark.parametrize("rcps", [True, False])
def test_scores_are_the_same_on_the_other_strand(tmp_path, genome, sequences, rcps):
    model = build(rcps)
    rows = snvs(sequences, 0, 3, 60, 100, 119, 198, 199)
    reverse = {name: s.translate(COMPLEMENT)[::-1] for name, s in sequences.items()}
    mirrored = [
        ("chr1", LENGTHS["chr1"] - 1 - p, ref.translate(COMPLEMENT), alt.translate(COMPLEMENT))
        for _, p, ref, alt in rows
    ]
    forward = score(model, make(*rows), genome, context_length=CONTEXT)
    backward = score(
        model,
        make(*mirrored),
        write_genome(tmp_path / "reverse.fa", reverse),
        context_length=CONTEXT,
    )
    np.testing.assert_allclose(backward.llr, forward.llr, atol=1e-5)
    assert np.abs(np.diff(forward.llr)).min() > 1e-3


def test_every_alt_gets_a_row_and_a_status(genome, sequences, ps):
    chr1, chr2 = sequences["chr1"], sequences["chr2"]
    good, multiple = chr1[60], chr1[70:72]
    table = [
        (("chr1", 60, good, other(good)), "ok"),
        (("1", 60, good.lower(), other(good, 2).lower()), "ok"),
        (("chr1", 70, multiple, multiple[0] + other(multiple[1])), "ok"),
        (("chr1", 71, multiple[1], other(multiple[1])), "ok"),
        (("chr1", 60, other(good), good), "ref_mismatch"),
        (("chr3", 60, good, other(good)), "unknown_chrom"),
        (("chr3", 60, good, "<DEL>"), "unknown_chrom"),
        (("chr1", 200, "A", "C"), "out_of_range"),
        (("chr1", -1, "A", "C"), "out_of_range"),
        (("chr1", 60, good, good + "A"), "indel"),
        (("chr1", 70, multiple, other(multiple[0]) + other(multiple[1])), "ok"),
        (("chr1", 70, multiple, other(multiple[0]) + "N"), "ambiguous"),
        (("chr1", 70, other(multiple[0]) + multiple[1], multiple), "ref_mismatch"),
        (("chr1", 70, other(multiple[0]) + multiple[1], other(multiple[0]) + "A"), "ref_mismatch"),
        (("chr1", 119, chr1[119] + "A", "C"), "indel"),
        (("chr1", 40, chr1[40:72], "".join(map(other, chr1[40:72]))), "too_long"),
        (("chr1", 60, good, "<DEL>"), "symbolic"),
        (("chr1", 60, good, f"{good}[chr2:4["), "symbolic"),
        (("chr1", 60, good, "*"), "spanning_deletion"),
        (("chr1", 60, good, None), "missing_alt"),
        (("chr1", 120, "A", "C"), "ambiguous"),
        (("chr1", 121, "A", "C"), "ambiguous"),
        (("chr1", 60, good, "R"), "ambiguous"),
        (("chr2", 89, chr2[89], other(chr2[89])), "ok"),
    ]
    rows, statuses = zip(*table, strict=True)
    variants = make(*rows)
    scored = score(ps, variants, genome, context_length=CONTEXT, max_ref_mismatch=0.5)
    assert scored.status.tolist() == list(statuses)
    assert np.isnan(scored.llr).tolist() == [status != "ok" for status in statuses]
    # The same change of the same base, written in two ways.
    assert scored.llr[2] == scored.llr[3]
    dropped = score(ps, variants, genome, context_length=CONTEXT, max_ref_mismatch=0.5, edge="drop")
    assert dropped.status.tolist() == [*statuses[:-1], "crosses_edge"]
    assert np.isnan(dropped.llr[-1])
    np.testing.assert_allclose(dropped.llr[:-1], scored.llr[:-1], atol=1e-5)


def test_one_forward_pass_per_position(genome, sequences, ps, monkeypatch):
    seen, run = [], blocks.run_batches

    def counted(*arguments, **options):
        for batch, values in run(*arguments, **options):
            seen.append(len(batch.rows))
            yield batch, values

    monkeypatch.setattr(blocks, "run_batches", counted)
    chr1 = sequences["chr1"]
    rows = [("chr1", p, chr1[p], other(chr1[p], i)) for p in (90, 40) for i in (1, 2, 3)]
    scored = score(ps, make(*rows), genome, context_length=CONTEXT)
    assert sum(seen) == 2
    apart = [score(ps, make(row), genome, context_length=CONTEXT).llr[0] for row in rows[::2]]
    np.testing.assert_allclose(scored.llr[::2], apart, atol=1e-5)


def test_the_ends_of_contigs(genome, sequences, ps, capsys):
    rows = make(*snvs(sequences, 2, 199, 100))
    padded = score(ps, rows, genome, context_length=CONTEXT)
    said = capsys.readouterr().err
    assert "2 windows extend past the end of a contig and are padded with N\n" in said
    chr1 = sequences["chr1"]
    ids = Tokenizer().encode("N" * 13 + chr1[:18])
    ids[15] = 3
    logits = np.asarray(ps(jnp.asarray(ids)[None]).logits[0, 15, jnp.array([7, 8, 9, 10])])
    ref, alt = "ACGT".index(chr1[2]), "ACGT".index(other(chr1[2]))
    np.testing.assert_allclose(padded.llr[0], logits[alt] - logits[ref], atol=1e-5)
    shifted = score(ps, rows, genome, context_length=CONTEXT, edge="shift")
    ids = Tokenizer().encode(chr1[:31])
    ids[2] = 3
    logits = np.asarray(ps(jnp.asarray(ids)[None]).logits[0, 2, jnp.array([7, 8, 9, 10])])
    np.testing.assert_allclose(shifted.llr[0], logits[alt] - logits[ref], atol=1e-5)
    np.testing.assert_allclose(shifted.llr[2], padded.llr[2], atol=1e-5)
    with pytest.raises(UserError) as error:
        score(ps, rows, genome, context_length=CONTEXT, edge="error")
    assert str(error.value) == (
        f"variants:1 (chr1:3 {chr1[2]}>{other(chr1[2])}) needs bases -13 to 18 (0-based) of a "
        "contig of 200: choose edge pad, shift or drop"
    )


def test_wrong_genome_stops_before_the_model_runs(genome, sequences, ps, monkeypatch):
    monkeypatch.setattr(blocks, "run_batches", None)
    chr1 = sequences["chr1"]
    rows = snvs(sequences, *range(20, 119))
    wrong = [("chr1", p, other(ref), ref) for _, p, ref, _ in rows[:2]]
    variants = make(*rows[:2], *wrong, *rows[4:])
    with pytest.raises(UserError) as error:
        score(ps, variants, genome)
    first = f"variants:3 (chr1:21 {other(chr1[20])}>{chr1[20]}) where the genome has {chr1[20]}"
    assert str(error.value) == (
        f"variants: REF differs from the genome in 2 of 99 records, first at {first}: "
        f"{genome.path} is most likely another assembly than the variants were called on "
        "(max_ref_mismatch, now 0.01, sets how many are accepted)"
    )


@pytest.mark.parametrize(
    ("shift", "says"), [(-1, "one too small, counted from 0"), (1, "one too large")]
)
def test_positions_off_by_one_are_recognised(genome, sequences, ps, shift, says):
    rows = [(c, p + shift, ref, alt) for c, p, ref, alt in snvs(sequences, *range(20, 110))]
    with pytest.raises(UserError, match=f": the positions are most likely {says} \\(max_ref"):
        score(ps, make(*rows), genome)


def test_records_are_counted_not_alts(genome, sequences, ps):
    """One record in 100 may differ by default, however many ALTs it lists."""
    rows = snvs(sequences, *range(20, 119))
    ref = rows[0][2]
    alts = [(*rows[0][:2], other(ref), other(ref, i)) for i in (2, 3)]
    variants = make(*alts, *rows)
    variants = variants._replace(record=np.maximum(variants.record - 1, 0))
    scored = score(ps, variants, genome, context_length=3, batch_size=64)
    assert scored.status.tolist() == ["ref_mismatch"] * 2 + ["ok"] * 99


def test_real_variants_match_their_genome(shared, tmp_path, ps):
    """Of 1000 Genomes SNVs on chr20 every REF is the genome's base; scores are finite."""
    import csv
    import gzip

    data = shared / "data" / "variants_human"
    path = tmp_path / "chr20.fa"
    text = gzip.decompress((data / "chr20_1000000_2000000.fa.gz").read_bytes()).decode()
    path.write_text(">chr20\n" + text.partition("\n")[2])
    with gzip.open(data / "snvs_1000g_hg19.csv.gz", "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["chrom"] == "chr20"][::1_000]
    variants = make(*(("20", int(row["pos0"]) - 1_000_000, row["ref"], row["alt"]) for row in rows))
    scored = score(ps, variants, Genome(path), context_length=CONTEXT, max_ref_mismatch=0.0)
    assert set(scored.status.tolist()) == {"ok"}
    assert np.isfinite(scored.llr).all()


def test_embeddings_of_a_classifier_are_read_without_its_head(genome, sequences, caplog):
    chr1 = sequences["chr1"]
    variants = make(("chr1", 50, chr1[50], other(chr1[50])))
    model, options = classifier(d_model=16, n_layer=1), {"context_length": CONTEXT, "window": 7}
    found = score_variants(model, variants, genome, mode="embedding", **options)
    assert found["status"].to_list() == ["ok"] and found["l2"][0] > 0
    assert "its hidden states are read, without the head" in caplog.text


@pytest.mark.parametrize("ending", [".tsv", ".tsv.gz"])
def test_further_columns_stay_and_scores_of_the_same_mode_are_replaced(tmp_path, ending):
    text = "#chrom\tpos\tnote\tref\talt\tllr\n1\t007\tx\tA\tC\told\nchr2\t3\t1.50\tac\t\told\n"
    (tmp_path / "a.tsv").write_text(text)
    scores = polars.DataFrame(
        {"row": [0, 1], "status": ["ok", "missing_alt"], "llr": [-0.5, None]},
        schema_overrides={"llr": polars.Float32},
    )
    out = tmp_path / f"out{ending}"
    with table_writer(out, ending) as write:
        write(scored_table(as_variants(tmp_path / "a.tsv"), range(2), scores))
    data = out.read_bytes()
    assert (gzip.decompress(data) if ending == ".tsv.gz" else data).decode() == (
        "chrom\tpos\tnote\tref\talt\tstatus\tllr\n"
        "1\t7\tx\tA\tC\tok\t-0.5\nchr2\t3\t1.50\tac\t\tmissing_alt\t\n"
    )
