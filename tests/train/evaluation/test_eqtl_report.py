import json

import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax.train.evaluation.config import EqtlEvaluation
from caduceus_jax.train.evaluation.eqtl_report import evaluate_eqtl
from tests.models import language_model


@pytest.fixture
def config(tmp_path):
    rng = np.random.default_rng(0)
    bases = "".join(rng.choice(list("ACGT"), 400))
    (tmp_path / "g.fa").write_text(f">chr1\n{bases}\n>chr9\n{bases[::-1]}\n")
    rows = ["CHROM,POS,ALT,label,distance_to_nearest_TSS"]
    for i, (chrom, text) in enumerate([("chr1", bases), ("chr9", bases[::-1])] * 12):
        pos = 30 + 12 * i
        alt = "C" if text[pos - 1] != "C" else "G"
        rows.append(f"{chrom},{pos},{alt},{i // 2 % 2},{100 * i}")
    rows.append("chr1,2,A,1,5")  # its window would begin before the contig
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    language_model(d_model=8, n_layer=1).save_pretrained(tmp_path / "m")
    return EqtlEvaluation(
        str(tmp_path / "m"),
        table=str(tmp_path / "t.csv"),
        genome=str(tmp_path / "g.fa"),
        out=str(tmp_path / "out"),
        context_length=32,
        window=5,
        test_contigs="chr9",
        seeds=[1],
        batch_size=4,
    )


def test_the_command_writes_every_row_and_a_report(config, tmp_path, capsys):
    evaluate_eqtl(config)
    out = tmp_path / "out"
    found = json.loads((out / "results.json").read_text())
    assert found["rows"] == {"crosses_edge": 1, "ok": 24}
    nearest = found["auroc"]["0 - 30 kb"]
    assert (nearest["train"], nearest["test"]) == (12, 12) and 0 <= nearest["mean"] <= 1
    # No row is farther away: nothing can be computed, and JSON says null.
    assert found["auroc"]["100 kb +"]["mean"] is None
    rows = (out / "rows.tsv").read_text().splitlines()
    assert len(rows) == 26 and rows[-1].endswith("\tcrosses_edge")
    assert "| 100 kb + | None |  | 0 | 0 | one class only |" in capsys.readouterr().out
    assert "Variants that change expression" in (out / "report.html").read_text()


def test_what_is_missing_is_named(config):
    for name, message in (("table", "table is missing: the published"), ("genome", "genome is")):
        missing = EqtlEvaluation(**{**vars(config), name: ""})
        with pytest.raises(cj.UserError, match=message):
            evaluate_eqtl(missing)
