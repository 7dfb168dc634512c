from caduceus_jax.model.files import model_card
from caduceus_jax.model.files.model_card import ModelCard
from tests.models import classifier, language_model


def card_of(tmp_path, model, **options):
    model.save_pretrained(tmp_path / "yeast", **options)
    return (tmp_path / "yeast" / "README.md").read_text()


def test_what_is_not_known_is_left_out(tmp_path):
    text = card_of(tmp_path, language_model(n_layer=1))
    assert "# yeast\n" in text and "| parameters | 9,552 |" in text
    assert "masked language model of DNA (Caduceus-PS" in text
    for unknown in ("None", "training data", "licence", "license", "Metrics", "base_model"):
        assert unknown not in text


def test_what_is_known_is_told(tmp_path):
    card = ModelCard(
        name="Yeast",
        data="S. cerevisiae R64",
        tokens=1_000_000,
        recipe="quickstart",
        commit="abc123",
        metrics={"perplexity": 3.51234},
        rc_error=2e-7,
        license="apache-2.0",
        base_model="owner/name",
    )
    text = card_of(tmp_path, language_model(n_layer=1), card=card)
    assert text.startswith("---\nlibrary_name: caduceus-jax\n")
    assert "license: apache-2.0\nbase_model: owner/name\n---\n" in text
    rows = [
        "# Yeast",
        "| training data | S. cerevisiae R64 |",
        "| bases seen in training | 1,000,000 |",
        "| recipe | quickstart |",
        "| commit | abc123 |",
        "| perplexity | 3.512 |",
        "| error on reverse complements | 2.0e-07 at most |",
    ]
    assert [row for row in rows if f"\n{row}\n" not in text] == []


def test_a_classifier_tells_its_outputs(tmp_path):
    model = classifier("max", "posthoc", num_labels=2)
    model.task = model.task.used_as(pooling="max", rc_mode="posthoc", labels=("no", "yes"))
    text = card_of(tmp_path, model)
    assert "| outputs | no, yes |" in text and "| rc_mode | posthoc |" in text
    assert "fill-mask" not in text


def test_a_card_of_somebody_else_is_left_alone(tmp_path):
    card_of(tmp_path, language_model(n_layer=1))
    assert "# renewed" not in card_of(tmp_path, language_model(n_layer=1))
    assert "# renewed" in card_of(tmp_path, language_model(n_layer=1), card=ModelCard("renewed"))
    (tmp_path / "yeast" / model_card.README).write_text("# Ours\n")
    assert card_of(tmp_path, language_model(n_layer=1)) == "# Ours\n"


def test_a_runs_model_has_the_name_of_the_run(tmp_path):
    model = language_model(n_layer=1)
    for place in ("yeast/model", "yeast/seed-12/model"):
        model.save_pretrained(tmp_path / place)
        assert "# yeast\n" in (tmp_path / place / "README.md").read_text()
