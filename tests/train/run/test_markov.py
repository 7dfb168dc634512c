import json
import math

import numpy as np
import pytest

from caduceus_jax.train.data.splits import Block, Splits
from caduceus_jax.train.run.markov import (
    baselines,
    fit_markov,
    markov_cross_entropy,
    order_0_entropy,
    recorded_baselines,
)
from tests.genomes import prepared

A, C, G, T, UNKNOWN = range(5)


def codes(*values):
    return np.array(values, np.int8)


def test_entropy_of_a_composition_by_hand():
    # A 1/2, C 1/4, G 1/4: 1/2 ln 2 + 2 * 1/4 ln 4 = 3/2 ln 2.
    sequences = [codes(A, C, UNKNOWN), codes(A, G)]
    assert order_0_entropy(sequences) == pytest.approx(1.5 * math.log(2))
    assert order_0_entropy([codes(A, A)]) == 0
    assert order_0_entropy([codes(UNKNOWN)]) == 0


def test_markov_counts_both_strands_and_one_more():
    # AAC and its reverse complement GTT. Pairs: AA, AC, GT, TT. After A: (1+1, 1+1, 1, 1) / 6.
    singles, pairs = map(np.exp, fit_markov([codes(A, A, C)], 1))
    np.testing.assert_allclose(singles, [[3 / 10, 2 / 10, 2 / 10, 3 / 10]])
    np.testing.assert_allclose(pairs[A], [2 / 6, 2 / 6, 1 / 6, 1 / 6])
    np.testing.assert_allclose(pairs[C], [1 / 4] * 4)
    np.testing.assert_allclose(pairs[G], [1 / 5, 1 / 5, 1 / 5, 2 / 5])
    np.testing.assert_allclose(pairs[T], [1 / 5, 1 / 5, 1 / 5, 2 / 5])


def test_markov_cross_entropy_by_hand():
    model = fit_markov([codes(A, A, C)], 1)
    # The first base has no context: 3/10 for A; then A after A, 2/6; after the unknown base
    # T has no context either: 3/10.
    expected = -math.log(3 / 10) - math.log(2 / 6) - math.log(3 / 10)
    found = markov_cross_entropy(model, [codes(A, A, UNKNOWN, T)])
    assert found == pytest.approx(expected / 3)


def test_an_order_two_context_reads_left_to_right():
    # AAC and GTT again: after AA comes C, after GT comes T, and nothing else of three bases.
    triples = np.exp(fit_markov([codes(A, A, C)], 2)[2])
    np.testing.assert_allclose(triples[4 * A + A], [1 / 5, 2 / 5, 1 / 5, 1 / 5])
    np.testing.assert_allclose(triples[4 * G + T], [1 / 5, 1 / 5, 1 / 5, 2 / 5])
    np.testing.assert_allclose(triples[4 * T + G], [1 / 4] * 4)


def found_in(folder, text, *, held_out):
    """Baselines with the last so many bases held out."""
    store, cut = prepared(folder, c=text), len(text) - held_out
    train, validation = Block(0, "c", 0, cut), Block(0, "c", cut, len(text))
    return baselines(Splits([store], [train], [validation], []))


def test_a_periodic_genome_is_predictable_from_context_alone(tmp_path):
    found = found_in(tmp_path, "ACGT" * 500 + "acgt" * 100, held_out=400)
    assert found["order_0_entropy"] == pytest.approx(math.log(4))
    assert found["markov_3"] < 0.03
    assert found["markov_5"] < 0.03


def test_random_sequence_has_nothing_to_learn(tmp_path):
    text = "".join(np.random.default_rng(0).choice(list("ACGT"), 50000))
    found = found_in(tmp_path, text, held_out=10000)
    for value in found.values():
        assert math.log(4) - 0.001 < value < math.log(4) + 0.06


def test_held_out_sequence_is_not_learnt_from_and_counts_once(tmp_path):
    """Intervals overlap each other, and the held-out ones."""
    store = prepared(tmp_path, c="A" * 100 + "C" * 50)
    held_out = [Block(0, "c", 60, 120), Block(0, "c", 100, 120)]
    train = [Block(0, "c", 0, 80), Block(0, "c", 40, 90), Block(0, "c", 110, 150)]
    found = baselines(Splits([store], train, held_out, []))
    # 40 A and 20 C are held out; 60 A and 30 C are left.
    assert found["order_0_entropy"] == pytest.approx(-math.log(2 / 3) * 2 / 3 + math.log(3) / 3)
    model = fit_markov([np.repeat(codes(A), 60), np.repeat(codes(C), 30)], 3)
    expected = markov_cross_entropy(model, [np.repeat(codes(A, C), [40, 20])])
    assert found["markov_3"] == pytest.approx(expected)


def test_a_run_that_continues_reads_what_it_counted(tmp_path):
    store = prepared(tmp_path, c="ACGT" * 50)
    splits = Splits([store], [Block(0, "c", 0, 100)], [Block(0, "c", 100, 200)], [])
    path = tmp_path / "baselines.json"
    found = recorded_baselines(splits, path, begun=True)
    assert json.loads(path.read_text()) == found == baselines(splits)
    path.write_text('{"markov_3": 7.0}')
    assert recorded_baselines(splits, path, begun=True) == {"markov_3": 7.0}
    assert recorded_baselines(splits, path, begun=False) == found
