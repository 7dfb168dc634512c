"""What must be moved and computed at the least, counted by hand, and the time that takes."""

from collections.abc import Mapping
from typing import NamedTuple


class Shape(NamedTuple):
    """Of one selective scan."""

    batch: int
    length: int
    channels: int
    state: int

    @property
    def tokens(self) -> int:
        """Of all sequences."""
        return self.batch * self.length

    @property
    def elements(self) -> int:
        """State elements: a token, a channel, a state."""
        return self.tokens * self.channels * self.state


Counts = dict[str, int]  # bytes, exponentials, flops, and products: flops of matrix products


def scan_counts(shape: Shape, itemsize: int, *, gated: bool = True) -> dict[str, Counts]:
    """Of the selective scan with D, bias, softplus and, where it is gated, z.

    Forward reads u, delta, z, B, C once and writes y once. Backward reads them and the cotangent
    and writes the five gradients. Each pass takes one exponential a state element for the decay;
    softplus and SiLU take three more a channel and token. The recurrence and its output are two
    multiply-adds and a product a state element; backward repeats them and has four multiply-adds
    of its own.

    Args:
        shape: of the scan.
        itemsize: bytes of a number of the sequences.
        gated: whether the scan applies the gate z.
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
    """Of a BiMamba mixer with shared projections, from `in_proj` to `out_proj`.

    What lies between could stay on the chip, so forward reads and writes only the hidden state,
    and backward reads it and the cotangent and writes the gradient. In each direction a pass takes
    the exponentials of a scan without gate and one of the convolution's SiLU; the gate is applied
    once. Backward takes two matrix products for each of forward's.

    Args:
        shape: of the scan of one direction.
        itemsize: bytes of a number of the hidden state.
        d_model: channels of the hidden state.
        delta_rank: of the projection to delta.
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
    """The least time of each kind of work, in ms.

    Args:
        counts: how much there is of each kind; kinds without a rate are passed over.
        rates: how much of each kind the machine does in a second.
    """
    return {kind: 1e3 * count / rates[kind] for kind, count in counts.items() if kind in rates}
