"""A run that is killed and resumed writes what an undisturbed one does, and computes no more."""

import importlib.util
import pathlib

import numpy as np
import pytest
from flax import nnx

from caduceus_jax import CaduceusConfig, CaduceusForMaskedLM, UserError, inference
from caduceus_jax.genomics.score_variants import score_variants

HEADER = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
OPTIONS = {"context_length": 21, "batch_size": 4}


@pytest.fixture
def inputs(tmp_path) -> tuple[str, pathlib.Path, pathlib.Path]:
    """A model, 30 variants of which four are of two bases, and the genome."""
    config = CaduceusConfig(d_model=8, n_layer=1, initializer_range=1.0)
    CaduceusForMaskedLM(config, rngs=nnx.Rngs(0)).save_pretrained(str(tmp_path / "model"))
    bases = "".join(np.random.default_rng(0).choice(list("ACGT"), 400))
    (tmp_path / "genome.fa").write_text(f">1\n{bases}\n")
    turned = bases.translate(str.maketrans("ACGT", "CATG"))
    records = [
        f"1\t{p + 1}\t.\t{bases[p : p + n]}\t{turned[p : p + n]}\t.\t.\t.\n"
        for p, n in ((p, 2 if p % 100 == 0 else 1) for p in range(100, 400, 10))
    ]
    (tmp_path / "in.vcf").write_text(HEADER + "".join(records))
    return str(tmp_path / "model"), tmp_path / "in.vcf", tmp_path / "genome.fa"


def interrupt(monkeypatch, after: int) -> list[int]:
    """Counts forward passes, and stops the run after some of them."""
    seen, run = [], inference.iterate_masked_log_probabilities

    def counted(model, ids, positions, **options):
        for result in run(model, ids, positions, **options):
            if len(seen) == after:
                raise KeyboardInterrupt
            seen.append(result[0])
            yield result

    monkeypatch.setattr(inference, "iterate_masked_log_probabilities", counted)
    return seen


@pytest.mark.parametrize("stops", [(3,), (9, 11), (28, 2), (27,)])
def test_what_was_computed_is_not_computed_again(tmp_path, inputs, monkeypatch, stops):
    whole, out = tmp_path / "whole.vcf", tmp_path / "out.vcf"
    score_variants(*inputs, out=whole, **OPTIONS)
    kept = 0
    for after in stops:
        with monkeypatch.context() as patch:
            interrupt(patch, after)
            with pytest.raises(KeyboardInterrupt):
                score_variants(*inputs, out=out, resume=kept > 0, **OPTIONS)
        # 27 of one base and 3 of two, in batches of four.
        kept = min(kept + after, 27) // 4 * 4 if kept + after < 27 else 27
    assert not out.exists() and (tmp_path / "out.vcf.journal").exists() == (kept > 0)
    if not kept:
        return
    seen = interrupt(monkeypatch, 1_000)
    score_variants(*inputs, out=out, resume=True, **OPTIONS)
    # Whole batches: what fills the last one repeats its rows.
    assert len(seen) == max(27 - kept, 4 * (kept < 27)) + 4
    assert out.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "out.vcf.journal").exists()


def test_other_options_are_another_run(tmp_path, inputs, monkeypatch):
    out = tmp_path / "out.vcf"
    with monkeypatch.context() as patch:
        interrupt(patch, 9)
        with pytest.raises(KeyboardInterrupt):
            score_variants(*inputs, out=out, **OPTIONS)
    inputs[2].write_text(inputs[2].read_text() + ">2\nACGT\n")
    with pytest.raises(UserError, match=r"journal of another run, which differs in edge, genome:"):
        score_variants(*inputs, out=out, resume=True, edge="shift", **OPTIONS)


def test_killed_runs_are_resumed_to_the_same_bytes(tmp_path, inputs, capsys):
    path = pathlib.Path(__file__).parents[2] / "stress" / "kill_and_resume.py"
    spec = importlib.util.spec_from_file_location("kill_and_resume", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    words = [str(word) for word in inputs]
    words += ["--out", str(tmp_path / "out.vcf"), "--context-length", "21", "--batch-size", "1"]
    assert script.main(2, words)
    assert "the same bytes" in capsys.readouterr().out
