import json

import pytest

import caduceus_jax as cj
from caduceus_jax.model.files import original_code
from tests.models import language_model

FILES = ("configuration_caduceus", "modeling_caduceus", "modeling_rcps", "tokenization_caduceus")


@pytest.fixture
def code(tmp_path):
    """A clone of the original's repository, as far as names go."""
    folder = tmp_path / "clone" / "caduceus"
    folder.mkdir(parents=True)
    for name in (*FILES, "__init__"):
        (folder / f"{name}.py").write_text("# code\n")
    return tmp_path / "clone"


def read(path):
    return json.loads(path.read_text())


def test_a_new_model_names_the_code_on_the_hub(tmp_path):
    language_model(n_layer=1).save_pretrained(tmp_path / "m")
    auto = read(tmp_path / "m" / "config.json")["auto_map"]
    assert auto["AutoConfig"].endswith("-16--configuration_caduceus.CaduceusConfig")
    assert "auto_map" not in read(tmp_path / "m" / "tokenizer_config.json")


def test_code_that_is_copied_is_named(tmp_path, code):
    language_model(n_layer=1).save_pretrained(tmp_path / "m", code=code)
    assert {p.stem for p in (tmp_path / "m").glob("*.py")} == set(FILES)
    auto = read(tmp_path / "m" / "config.json")["auto_map"]
    assert auto["AutoModelForMaskedLM"] == "modeling_caduceus.CaduceusForMaskedLM"
    auto = read(tmp_path / "m" / "tokenizer_config.json")["auto_map"]
    assert auto == {"AutoTokenizer": ["tokenization_caduceus.CaduceusTokenizer", None]}


def test_code_that_was_left_behind_is_looked_for_on_the_hub(tmp_path, code):
    model = language_model(n_layer=1)
    model.save_pretrained(tmp_path / "m", code=code)
    again = cj.CaduceusForMaskedLM.from_pretrained(tmp_path / "m")
    again.save_pretrained(tmp_path / "again")
    auto = read(tmp_path / "again" / "config.json")["auto_map"]
    assert auto == original_code.auto_map()
    auto = read(tmp_path / "again" / "tokenizer_config.json")["auto_map"]["AutoTokenizer"]
    assert auto[0] == f"{original_code.HUB}--tokenization_caduceus.CaduceusTokenizer"


def test_another_vocabulary_needs_no_code_for_its_tokenizer(tmp_path, code, golden):
    model = cj.CaduceusForMaskedLM.from_pretrained(golden / "ps_vocabulary8")
    model.save_pretrained(tmp_path / "m", code=code)
    theirs = (golden / "ps_vocabulary8" / "tokenizer_config.json").read_text()
    assert (tmp_path / "m" / "tokenizer_config.json").read_text() == theirs


def test_a_folder_without_the_code_is_refused(tmp_path):
    with pytest.raises(cj.UserError, match=r"has no modeling_caduceus.py: it is not the original"):
        original_code.copy(tmp_path, tmp_path)
