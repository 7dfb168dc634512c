"""The site's hooks: public names lead to where they are defined."""

import caduceus_jax
from docs.tools import hooks


def test_names_become_the_places_where_they_are_defined():
    assert hooks.path("CaduceusConfig") == "caduceus_jax.model.config.CaduceusConfig"
    assert hooks.path("convert") == "caduceus_jax.model.convert"
    page = hooks.on_page_markdown("# x\n\n::: cj.Tokenizer\n")
    assert "::: caduceus_jax.tokenizer.Tokenizer\n    options: {heading: cj.Tokenizer" in page
    page = hooks.on_page_markdown("::: cj.convert\n    options: {members: [x]}\n")
    assert page.endswith("toc_label: cj.convert, members: [x]}\n")


def test_the_package_is_laid_out_as_it_is_installed(tmp_path, monkeypatch):
    for folder in ("caduceus_jax", "kernels", "train", "configs"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "module.py").write_text(f"{folder} = advanced((1, 2))\n")
    monkeypatch.setattr(hooks, "ROOT", tmp_path)
    for _ in range(2):
        hooks.on_config(None)
    package = tmp_path / "build/site/caduceus_jax"
    assert (package / "module.py").read_text() == "caduceus_jax = (1, 2)\n"
    assert (package / "train/module.py").read_text() == "train = (1, 2)\n"


def test_public_names_are_importable_from_there():
    for name in caduceus_jax.__all__:
        if not name.startswith("__"):
            assert hooks.path(name).startswith("caduceus_jax.")
