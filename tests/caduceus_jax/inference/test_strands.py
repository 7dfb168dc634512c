"""How strands are read: chosen by the model, or refused where it contradicts the model."""

import pytest

from caduceus_jax import CaduceusConfig, UserError
from caduceus_jax.inference.embeddings import reading
from caduceus_jax.inference.strands import resolve_rc_mode

PS, PH = CaduceusConfig(rcps=True), CaduceusConfig()


@pytest.mark.parametrize(
    ("config", "rc_mode", "scores", "expected"),
    [
        (PS, None, True, "equivariant"),
        (PH, None, True, "posthoc"),
        (PS, "equivariant", True, "equivariant"),
        (PH, "posthoc", False, "posthoc"),
        (PH, "none", True, "none"),
        (PS, "none", False, "none"),
    ],
)
def test_modes(config, rc_mode, scores, expected):
    assert resolve_rc_mode(config, rc_mode, scores=scores) == expected


@pytest.mark.parametrize(
    ("config", "rc_mode", "says"),
    [
        (PS, "posthoc", "rc_mode is 'posthoc', which contradicts an equivariant model"),
        (PS, "none", "rc_mode is 'none', which contradicts an equivariant model"),
        (PH, "equivariant", "rc_mode is 'equivariant', which contradicts a model that is not eq"),
        (PH, "augment", "rc_mode is 'augment'; it is one of: none, posthoc, equivariant"),
    ],
)
def test_contradictions_are_one_sentence(config, rc_mode, says):
    with pytest.raises(UserError, match=f"^{says}"):
        resolve_rc_mode(config, rc_mode, scores=True)


def test_both_strands_side_by_side_need_both(build):
    with pytest.raises(UserError, match="^concatenate needs both strands, and rc_mode is 'none'"):
        reading(build(), None, rc_mode="none", concatenate=True)
    assert reading(build(), None, concatenate=True).channels == 32
