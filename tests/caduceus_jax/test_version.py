import importlib.metadata
import re

from caduceus_jax.version import __version__


def test_the_version_is_the_installed_one():
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert importlib.metadata.version("caduceus-jax") == __version__
