import importlib

import jax
import numpy as np
import pytest

from caduceus_jax.kernels import Chunked, MosaicTPU, PallasTriton, Reference, Triton
from caduceus_jax.kernels.options import BY_NAME, default_platform, for_platform, name_of, resolve


def test_every_name_is_an_implementation_that_scans():
    assert [*BY_NAME] == ["reference", "chunked", "pallas_triton", "triton", "mosaic_tpu"]
    for name in BY_NAME:
        options = resolve(name)
        assert name_of(options) == name
        module = importlib.import_module(f"caduceus_jax.kernels.{options.module}")
        assert callable(module.scan)
        if options.convolution is not None:
            module = importlib.import_module(f"caduceus_jax.kernels.{options.convolution}")
            assert callable(module.gradients)


def test_what_an_implementation_stands_for():
    assert resolve(None) == Chunked()
    assert resolve("pallas_triton") == PallasTriton()
    assert resolve(Chunked(64, "associative")) == Chunked(64, "associative")


def test_an_unknown_implementation_is_refused():
    with pytest.raises(ValueError, match="'cuda' is not one of: reference, chunked, pallas_tri"):
        resolve("cuda")
    with pytest.raises(ValueError, match="implementation is 3; it is a name, an options object"):
        resolve(3)


@pytest.mark.parametrize(
    ("implementation", "platform", "options"),
    [
        (None, "tpu", MosaicTPU(interpret=False)),
        ("chunked", "tpu", Chunked(256, "associative")),
        ("chunked", "gpu", Chunked(128, "associative")),
        ("chunked", "cpu", Chunked(32, "sequential")),
        (Chunked(inner="associative"), "cpu", Chunked(128, "associative")),
        (Chunked(48), "tpu", Chunked(48, "associative")),
        ("pallas_triton", "gpu", PallasTriton(interpret=False)),
        ("triton", "cpu", Triton(interpret=True)),
        (MosaicTPU(block=256), "tpu", MosaicTPU(block=256, interpret=False)),
        ("reference", "tpu", Reference()),
    ],
)
def test_options_for_another_platform(implementation, platform, options):
    assert for_platform(implementation, platform) == options


@pytest.mark.parametrize(
    ("implementation", "platform", "message"),
    [
        ("mosaic_tpu", "gpu", "^mosaic_tpu on gpu; supported: tpu$"),
        (Triton(), "tpu", "^triton on tpu; supported: gpu$"),
    ],
)
def test_kernels_for_another_platform_are_refused(implementation, platform, message):
    with pytest.raises(NotImplementedError, match=message):
        for_platform(implementation, platform)


def test_the_platform_is_that_of_the_default_device():
    assert default_platform() == jax.default_backend()
    with jax.default_device(jax.devices("cpu")[0]):
        assert default_platform() == "cpu"
    with jax.default_device("cpu"):
        assert default_platform() == "cpu"


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (Chunked, {"chunk_length": 0}, "^chunk_length is 0; it must be a positive integer$"),
        (Chunked, {"chunk_length": -4}, "^chunk_length is -4; it must be a positive integer$"),
        (Chunked, {"chunk_length": 16.0}, "^chunk_length is 16.0; it must be a positive integer$"),
        (Chunked, {"chunk_length": True}, "^chunk_length is True; it must be a positive integer$"),
        (Chunked, {"chunk_length": "8"}, "^chunk_length is '8'; it must be a positive integer$"),
        (Chunked, {"inner": "foo"}, "^inner is 'foo'; it is 'sequential', 'associative' or None$"),
        (PallasTriton, {"chunk_length": 6}, "chunk_length is 6; .* a positive multiple of 4$"),
        (PallasTriton, {"chunk_length": 0}, "chunk_length is 0; .* a positive multiple of 4$"),
        (Triton, {"chunk_length": 6}, "chunk_length is 6; .* a positive multiple of 4$"),
        (MosaicTPU, {"chunk_length": 64}, "chunk_length is 64; .* a positive multiple of 128$"),
        (MosaicTPU, {"block": 96}, "^block is 96; it must be a positive multiple of 128$"),
    ],
)
@pytest.mark.usefixtures("shapes_unchecked")
def test_wrong_options_are_refused_when_they_are_made(kind, given, message):
    with pytest.raises(ValueError, match=message):
        kind(**given)


@pytest.mark.usefixtures("shapes_unchecked")
def test_numpy_integers_are_sizes():
    assert Chunked(np.int64(16)).chunk_length == 16
