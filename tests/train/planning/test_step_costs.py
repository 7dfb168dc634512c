import dataclasses

import pytest

from caduceus_jax import CaduceusConfig
from caduceus_jax.train.config import PretrainConfig
from caduceus_jax.train.data.config import DataConfig
from caduceus_jax.train.planning.step_costs import step_costs

# Two windows of four tokens; d_model 8, so 16 inner channels, rank 1, and 16 tokens to predict.
CONFIG = PretrainConfig(
    model=CaduceusConfig(d_model=8, n_layer=3, d_state=2, d_conv=4),
    data=DataConfig(rc_mode="none"),
    batch_size=2,
    max_length=4,
)


def changed(**model):
    return dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, **model))


def test_a_step_counted_by_hand():
    costs = step_costs(CONFIG)
    tokens, layers, directions = 8, 3, 2
    in_proj, out_proj = 8 * 32, 16 * 8
    x_proj, dt_proj = 16 * (1 + 2 + 2), 1 * 16
    block = in_proj + out_proj + directions * (x_proj + dt_proj)
    # A multiply-add is two; forward, and backward twice.
    assert costs["matrix products"].flops == 2 * 3 * tokens * (layers * block + 8 * 16)
    moved = (8 + 32) + (16 + 8) + directions * ((16 + 5) + (1 + 16))
    assert costs["matrix products"].bytes == 4 * 3 * tokens * (layers * moved + 8 + 16)
    walked = tokens * layers * directions
    assert costs["scans"].flops == walked * 16 * 2 * (5 + 13)
    assert costs["scans"].exponentials == walked * 2 * (16 * 2 + 2 * 16)
    # u, delta, B, C in, y out; then these and the cotangent in, four gradients out.
    assert costs["scans"].bytes == walked * 4 * ((36 + 16) + (36 + 16 + 36))
    assert costs["convolutions"].flops == walked * 16 * 4 * 2 * (1 + 3)
    assert costs["convolutions"].bytes == walked * 16 * 4 * (2 + 3)


def test_strands_double_a_step_and_bfloat16_halves_what_is_moved():
    once = step_costs(CONFIG)
    model = dataclasses.replace(CONFIG.model, rcps=True)
    both = step_costs(dataclasses.replace(CONFIG, model=model, data=DataConfig()))
    half = step_costs(dataclasses.replace(CONFIG, dtype="bfloat16"))
    for kind, cost in once.items():
        assert both[kind] == tuple(2 * count for count in cost)
        assert half[kind] == (cost.flops, cost.exponentials, cost.bytes // 2)


def test_blocks_that_are_computed_again_count_twice_forward():
    once, twice = step_costs(CONFIG), step_costs(dataclasses.replace(CONFIG, remat=True))
    head = 2 * 3 * 8 * 8 * 16
    blocks = once["matrix products"].flops - head
    assert twice["matrix products"].flops == blocks * 4 // 3 + head
    assert twice["scans"].flops == once["scans"].flops * (2 * 5 + 13) // (5 + 13)


def test_directions_that_share_nothing_project_twice_and_gate_within_the_scan():
    tied, untied = step_costs(CONFIG), step_costs(changed(bidirectional_weight_tie=False))
    more = untied["matrix products"].flops - tied["matrix products"].flops
    assert more == 2 * 3 * 8 * 3 * (8 * 32 + 16 * 8)
    wide = 8 * 3 * 2 * 16
    assert untied["scans"].bytes - tied["scans"].bytes == 4 * wide * (1 + 2)
    assert untied["scans"].exponentials - tied["scans"].exponentials == 2 * wide
    product = step_costs(changed(bidirectional_strategy="ew_multiply"))
    more = product["matrix products"].flops - tied["matrix products"].flops
    assert more == 2 * 3 * 8 * 3 * 16 * 8


def test_one_direction_is_half_of_two_that_share_nothing():
    one, two = (
        step_costs(changed(bidirectional=False)),
        step_costs(changed(bidirectional_weight_tie=False)),
    )
    assert [2 * count for count in one["scans"]] == list(two["scans"])


@pytest.mark.parametrize("gated", [False, True])
def test_a_split_length_is_summed_up_once_a_pass(gated):
    config = changed(bidirectional_weight_tie=not gated)
    whole, split = step_costs(config), step_costs(dataclasses.replace(config, sequence=1))
    assert whole == split
    # Shards of four tokens would be the whole window: a longer one.
    config = dataclasses.replace(config, max_length=8)
    whole, split = step_costs(config), step_costs(dataclasses.replace(config, sequence=2))
    walked, gate = 16 * 3 * 2, 16 if gated else 0
    assert split["scans"].flops - whole["scans"].flops == walked * 2 * 3 * 16 * 2
    assert split["scans"].exponentials - whole["scans"].exponentials == walked * (
        2 * (32 + 32) + gate
    )
    moved = 2 * (2 * 16 + 2) + gate
    assert split["scans"].bytes - whole["scans"].bytes == walked * 4 * moved
    assert split["matrix products"] == whole["matrix products"]
