"""Lower bounds of the work of a scan or a mixer, counted by hand, and the time they take."""

from collections.abc import Mapping
from typing import NamedTuple


class Shape(NamedTuple):
    """The shape of a selective scan."""

    batch: int
    length: int
    channels: int
    state: int

    @property
    def tokens(self) -> int:
        """Tokens of all sequences together."""
        return self.batch * self.length

    @property
    def elements(self) -> int:
        """State elements: tokens x channels x states."""
        return self.tokens * self.channels * self.state


Counts = dict[str, int]  # bytes, exponentials, flops, and products: flops of matrix products


def scan_counts(shape: Shape, itemsize: int, *, gated: bool = True) -> dict[str, Counts]:
    """Counts the work of a selective scan with D, bias, softplus and, if gated, z.

    The forward pass reads u, delta, z, B, C once and writes y once. The backward pass reads them
    and the cotangent and writes the five gradients. Each pass takes one exponential per state
    element for the decay, and its argument's product with A is counted with it; softplus and SiLU
    take three more per channel and token. The recurrence and its output are two multiply-adds and
    a product per state element; backward repeats them and adds four multiply-adds.

    Args:
        shape: batch, length, channels and states of the scan.
        itemsize: bytes per number of the sequences.
        gated: the scan applies the gate z.

    Returns:
        The counts of "forward", "backward" and "forward_backward".
    """
    wide, narrow = shape.tokens * shape.channels, shape.tokens * shape.state
    read = (3 if gated else 2) * wide + 2 * narrow
    exponentials = shape.elements + (3 if gated else 2) * wide
    forward = {
        "bytes": (read + wide) * itemsize,
        "exponentials": exponentials,
        "flops": 5 * shape.elements,
    }
    backward = {
        "bytes": (2 * read + wide) * itemsize,
        "exponentials": exponentials,
        "flops": 13 * shape.elements,
    }
    return _passes(forward, backward)


def mixer_counts(shape: Shape, itemsize: int, d_model: int, delta_rank: int) -> dict[str, Counts]:
    """Counts the work of a BiMamba mixer with shared projections, which are included.

    All that lies between could stay on the chip, so the forward pass reads and writes only the
    hidden state, and the backward pass reads it and the cotangent and writes the gradient. In each
    direction a pass takes the exponentials of a scan without gate and one more for the
    convolution's SiLU; the gate is applied once. Backward takes two matrix products for each one
    of forward.

    Args:
        shape: batch, length, channels and states of the scan of one direction.
        itemsize: bytes per number of the hidden state.
        d_model: channels of the hidden state.
        delta_rank: rank of the projection to delta.

    Returns:
        The counts of "forward", "backward" and "forward_backward".
    """
    hidden, wide = shape.tokens * d_model, shape.tokens * shape.channels
    exponentials = 2 * (shape.elements + 3 * wide) + wide
    per_token = 3 * d_model * shape.channels  # in_proj to x and z, out_proj
    per_token += 2 * shape.channels * (2 * delta_rank + 2 * shape.state)  # x_proj, dt_proj
    products = 2 * shape.tokens * per_token
    forward = {
        "bytes": 2 * hidden * itemsize,
        "exponentials": exponentials,
        "products": products,
    }
    backward = {
        "bytes": 3 * hidden * itemsize,
        "exponentials": exponentials,
        "products": 2 * products,
    }
    return _passes(forward, backward)


def _passes(forward: Counts, backward: Counts) -> dict[str, Counts]:
    both = {name: forward[name] + backward[name] for name in forward}
    return {"forward": forward, "backward": backward, "forward_backward": both}


def floors(counts: Counts, rates: Mapping[str, float]) -> dict[str, float]:
    """Computes the shortest time of each kind of work, in ms.

    Args:
        counts: amount of each kind; kinds without a rate are left out.
        rates: amount of each kind that the machine does per second.
    """
    return {kind: 1e3 * count / rates[kind] for kind, count in counts.items() if kind in rates}
