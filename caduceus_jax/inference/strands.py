"""Strands: which of them a forward pass reads, and how they are combined."""

from typing import Literal, get_args

from caduceus_jax.errors import UserError
from caduceus_jax.model.config import CaduceusConfig

# none: the strand as given alone. posthoc: a model that is not equivariant reads both strands, and
# what it makes of them is averaged ("post-hoc conjoining", Schiff et al. 2024, section 4.2).
# equivariant: an equivariant model, which reads both strands by construction.
RcMode = Literal["none", "posthoc", "equivariant"]


def resolve_rc_mode(config: CaduceusConfig, rc_mode: str | None, *, scores: bool) -> RcMode:
    """Chooses how strands are read, or checks what was chosen.

    Args:
        config: the model's architecture.
        rc_mode: None chooses by the model: "equivariant" or "posthoc".
        scores: the model's predictions are needed, which of an equivariant model are made of both
            strands; otherwise its hidden states, of which one strand's can be had.

    Raises:
        UserError: an unknown mode, or one that contradicts the model.
    """
    if rc_mode is None:
        return "equivariant" if config.rcps else "posthoc"
    if rc_mode not in get_args(RcMode):
        raise UserError(f"rc_mode is {rc_mode!r}; it is one of: {', '.join(get_args(RcMode))}")
    if config.rcps and rc_mode == "posthoc":
        raise UserError(
            "rc_mode is 'posthoc', which contradicts an equivariant model (rcps): it reads both "
            "strands already, leave rc_mode out"
        )
    if config.rcps and rc_mode == "none" and scores:
        raise UserError(
            "rc_mode is 'none', which contradicts an equivariant model (rcps): its predictions are "
            "made of both strands, leave rc_mode out"
        )
    if not config.rcps and rc_mode == "equivariant":
        raise UserError(
            "rc_mode is 'equivariant', which contradicts a model that is not equivariant (rcps): "
            "use 'posthoc', which averages both strands, or 'none'"
        )
    return rc_mode  # pyright: ignore[reportReturnType]
