import matplotlib.image
import pytest

from caduceus_jax.bench import roofline

CASE = {
    "shape": {"batch": 1, "length": 10, "channels": 4, "state": 2},
    "dtype": "float32",
    "what": "scan",
    "pass": "forward",
    "implementation": "chunked",
    "median_ms": 2.0,
    "min_ms": 1.0,
    "max_ms": 4.0,
    "floors_ms": {"bytes": 0.5},
}
HEAD = {"device": "a device", "jax": "0.0"}


def orange(path):
    """Pixels of the chunked implementation in the left half, upper panel."""
    picture = matplotlib.image.imread(path)
    part = picture[: picture.shape[0] // 2, : picture.shape[1] // 2]
    return ((part[..., 0] > 0.9) & (abs(part[..., 1] - 0.5) < 0.1) & (part[..., 2] < 0.2)).sum()


def test_cases_are_drawn_and_failures_left_out(tmp_path):
    failed = {name: CASE[name] for name in ("shape", "dtype", "what", "pass", "implementation")}
    roofline.draw(HEAD | {"cases": [CASE]}, tmp_path / "one.png")
    roofline.draw(HEAD | {"cases": [failed | {"error": "no"}]}, tmp_path / "none.png")
    assert orange(tmp_path / "one.png") > 20
    assert orange(tmp_path / "none.png") == 0


def test_a_mixer_has_state_elements_in_two_directions():
    assert roofline._elements(CASE) == 80
    assert roofline._elements(CASE | {"what": "mixer"}) == pytest.approx(160)
