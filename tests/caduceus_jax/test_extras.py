import importlib.metadata
import re

import pytest

from caduceus_jax.extras import _EXTRAS, how_to_install


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        ("polars", "needs polars: pip install 'caduceus-jax[genomics]'"),
        ("orbax.checkpoint", "needs orbax.checkpoint: pip install 'caduceus-jax[train]'"),
        ("caduceus_jax.nothing", None),
        (None, None),
    ],
)
def test_how_to_install(module, sentence):
    assert how_to_install(ModuleNotFoundError("x", name=module)) == sentence


def test_each_extra_brings_its_packages():
    distributions = {"sklearn": "scikit-learn", "orbax": "orbax-checkpoint"}
    required = [
        (re.match(r"[\w.-]+", line)[0].lower(), line)
        for line in importlib.metadata.requires("caduceus-jax")
    ]
    for extra, modules in _EXTRAS.items():
        for module in modules:
            name = distributions.get(module, module.replace("_", "-")).lower()
            lines = [line for found, line in required if found == name]
            assert any(f'extra == "{extra}"' in line or "extra" not in line for line in lines), name
