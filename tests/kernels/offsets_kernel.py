"""A Triton kernel that writes where the scan's kernels would read."""

from typing import no_type_check

import triton
import triton.language as tl

from caduceus_jax.kernels.gpu.triton_kernels import _channels_at, _place, _states_at, _tile_at


@triton.jit
@no_type_check
def offsets(out, token, p: tl.constexpr):
    """Largest offset from `out`, in elements, of three kinds of arrays at a token."""
    at = _place(p)
    start = out.to(tl.int64)
    channels, _ = _channels_at(out, token, at, p)
    states, _ = _states_at(out, token, at, p)
    tile, _ = _tile_at(out, at.row + token, at, p)
    tl.store(out, (tl.max(channels.to(tl.int64)) - start) // 8)
    tl.store(out + 1, (tl.max(states.to(tl.int64)) - start) // 8)
    tl.store(out + 2, (tl.max(tl.max(tile.to(tl.int64), 1)) - start) // 8)
