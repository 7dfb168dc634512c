import json

import matplotlib.image
import pytest
import yaml

import caduceus_jax as cj
from caduceus_jax.cli.main import main
from caduceus_jax.train.config import PretrainConfig, plain
from caduceus_jax.train.run.compare import read_run, table


@pytest.fixture
def folders(tmp_path):
    for name, steps in (("a", 4), ("b", 8)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.yaml").write_text(yaml.safe_dump(plain(PretrainConfig(steps=steps))))
        rows = [
            {
                "step": step,
                "masked_loss": 1.4 - 0.01 * step,
                "tokens_per_second": 1234.0,
                "goodput": 0.5,
                "skipped": 0,
            }
            | ({"validation_masked_loss": 1.3 + 0.1 * (step == 4)} if step % 2 == 0 else {})
            for step in (1, 2, 3, 4)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "b" / "lease.json").touch()
    return [tmp_path / "a", tmp_path / "b"]


def test_a_row_for_every_run(folders):
    _, one, other = table([read_run(folder) for folder in folders])
    assert one == [
        *("a", "finished", "4 / 4", "256 x 4", "8,192", "0.008"),
        *("1.3600", "1.3000", "2", "1,234", "50%"),
    ]
    assert other[1:3] == ["running", "4 / 8"]


def test_the_command_prints_the_table_and_draws_the_curves(folders, tmp_path, capsys):
    out = tmp_path / "curves.png"
    assert main(["runs", *map(str, folders), "--out", str(out)]) == 0
    assert "| a | finished | 4 / 4 |" in capsys.readouterr().out
    picture = matplotlib.image.imread(out)
    assert picture.shape[:2] == (600, 960)
    assert (picture[..., :3] < 0.9).any()


def test_a_folder_without_a_run_is_said(tmp_path):
    with pytest.raises(cj.UserError, match="does not hold a run: it has no config.yaml"):
        read_run(tmp_path)
