"""The least that a training step computes and moves, counted by hand.

A compiler's own analysis counts the body of a loop once, however often the loop goes round.
"""

from typing import NamedTuple

import jax.numpy as jnp

from caduceus_jax.costs import Shape, scan_counts
from caduceus_jax.train.config import StepConfig


class Cost(NamedTuple):
    """Holds the cost of one kind of work in one step, over all devices."""

    flops: int
    exponentials: int
    bytes: int


def step_costs(config: StepConfig) -> dict[str, Cost]:
    """Counts the matrix products, scans and convolutions of a training step.

    Each operation reads its inputs once and writes its results once; weights and what is done to
    single elements (norms, gates, the optimizer) are not counted. With `remat` the blocks' forward
    pass is counted twice; where it is "scans", without its scans.

    Per state element (a token, a channel, a state) a scan takes an exponential, two multiply-adds
    and a product; backward takes them again and four multiply-adds of its own. Softplus takes two
    exponentials per channel and token, SiLU one. Where a length is split, forward and backward each
    sum up their shard once, with an exponential, a product and a multiply-add a state element.

    Args:
        config: the run.
    """
    model = config.model
    tokens = config.batch_size * config.max_length * model.strands
    forwards, scans = {"none": (1, 1), "scans": (2, 1), "blocks": (2, 2)}[str(config.remat)]
    blocks = tokens * model.n_layer
    products = [(forwards, blocks, shape) for shape in _block_products(config)]
    products.append((1, tokens, (model.d_model, model.vocab_size)))
    itemsize = jnp.dtype(config.dtype).itemsize
    directed = blocks * (2 if model.bidirectional else 1)
    forward, backward, exchange = _scan(config, itemsize)
    wide, width = model.d_inner, model.d_conv
    return {
        # Backward has two products for each: with respect to the input, and to the weight.
        "matrix products": Cost(
            sum((n + 2) * rows * 2 * inner * outer for n, rows, (inner, outer) in products),
            0,
            sum((n + 2) * rows * (inner + outer) for n, rows, (inner, outer) in products)
            * itemsize,
        ),
        "scans": Cost(
            *(
                directed * (scans * f + b + e)
                for f, b, e in zip(forward, backward, exchange, strict=True)
            )
        ),
        # Backward: what SiLU was applied to again, the gradients of the input and of the filter.
        "convolutions": Cost(
            directed * wide * width * 2 * (forwards + 3),
            directed * wide * (forwards + 1),
            directed * wide * itemsize * (2 * forwards + 3),
        ),
    }


def _block_products(config: StepConfig) -> list[tuple[int, int]]:
    """Returns inner and outer size of every matrix product per token in one block."""
    model = config.model
    directions = 2 if model.bidirectional else 1
    tied = model.bidirectional and model.bidirectional_weight_tie
    in_projs = 1 if tied else directions
    out_projs = 1 if tied and model.bidirectional_strategy == "add" else directions
    rank, wide = model.delta_rank, model.d_inner
    return [
        *[(model.d_model, 2 * wide)] * in_projs,
        *[(wide, model.d_model)] * out_projs,
        *[(wide, rank + 2 * model.d_state), (rank, wide)] * directions,
    ]


def _scan(config: StepConfig, itemsize: int) -> tuple[Cost, Cost, Cost]:
    """Counts a scan per token and direction: forward, backward, and the extra of a split length."""
    model = config.model
    wide, narrow = model.d_inner, model.d_state
    elements = wide * narrow
    # Where projections are tied, the gate comes once, after both directions, outside the scan.
    gated = not (model.bidirectional and model.bidirectional_weight_tie)
    counted = scan_counts(Shape(1, 1, wide, narrow), itemsize, gated=gated)
    forward, backward = (Cost(**counted[name]) for name in ("forward", "backward"))
    if config.sequence == 1:
        return forward, backward, Cost(0, 0, 0)
    # Forward of u and B, backward of C and the cotangent, each with the steps.
    gate = wide if gated else 0
    moved = 2 * (2 * wide + narrow) + gate
    exchange = Cost(2 * 3 * elements, 2 * (elements + 2 * wide) + gate, moved * itemsize)
    return forward, backward, exchange
