import math

import matplotlib.image
import numpy as np
import pytest

from caduceus_jax.train.run.loss_curve import plot_losses, summary

BASELINES = {"order_0_entropy": 1.3, "markov_3": 1.2, "markov_5": 1.1}


def row(step, loss=1.0, **more):
    return {"loss": loss, "masked_loss": loss + 0.25, "tokens_per_second": 10.0, **more}


@pytest.mark.parametrize("rows", [[], [{"step": 5, **row(5, validation_masked_loss=1.15)}]])
def test_the_curve_is_a_picture_of_a_legible_size(tmp_path, rows):
    plot_losses(rows, BASELINES, tmp_path / "loss.png")
    picture = matplotlib.image.imread(tmp_path / "loss.png")
    assert picture.shape[:2] == (660, 960)
    # The order-0 line is red.
    red = (picture[..., 0] > 0.8) & (picture[..., 1] < 0.2) & (picture[..., 2] < 0.2)
    assert red.any(axis=0).mean() > 0.5


def test_skipped_steps_are_marked_and_no_part_of_the_curve(tmp_path):
    rows = [{"step": step, **row(step, loss=0.9)} for step in range(1, 40)]
    pictures = []
    for skipped in ({}, {"skipped": 1, "masked_loss": None}, {"skipped": 1, "masked_loss": 1.19}):
        rows[19] |= skipped
        plot_losses(rows, BASELINES, tmp_path / "loss.png")
        pictures.append(matplotlib.image.imread(tmp_path / "loss.png"))
    _, without, spike = pictures
    # The marks are purple, on the axis below step 20 of 39 and in the legend.
    purple = [np.abs(picture[..., :3] - (0.58, 0.40, 0.74)).max(-1) < 0.05 for picture in pictures]
    assert [marks.any() for marks in purple] == [False, True, True]
    assert purple[1][:540, 505:525].any()
    np.testing.assert_array_equal(without, spike)


def test_the_summary_puts_the_model_beside_what_it_has_to_beat():
    rows = [{"step": 5, **row(5, validation_masked_loss=1.05)}, {"step": 6, **row(6)}]
    lines = summary(BASELINES, rows, "9 held-out bases")
    assert lines[0] == "cross-entropy of masked bases in 9 held-out bases, nats/base:"
    table = {line[2:37].strip(): float(line[37:]) for line in lines[1:]}
    assert table == {
        "a guess among four bases": round(math.log(4), 4),
        "order-0 entropy of that sequence": 1.3,
        "order-3 Markov model": 1.2,
        "order-5 Markov model": 1.1,
        "this model at step 5": 1.05,
    }
