import math

import numpy as np
import pytest

from caduceus_jax.train.baselines import (
    baselines,
    fit_markov,
    markov_cross_entropy,
    order_0_entropy,
)
from caduceus_jax.train.data import Block

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


def test_a_periodic_genome_is_predictable_from_context_alone():
    genome = {"c": np.frombuffer(b"ACGT" * 500 + b"acgt" * 100, np.uint8)}
    found = baselines(genome, [Block("c", 0, 2000)], [Block("c", 2000, 2400)])
    assert found["order_0_entropy"] == pytest.approx(math.log(4))
    assert found["markov_3"] < 0.03
    assert found["markov_5"] < 0.03


def test_random_sequence_has_nothing_to_learn():
    genome = {
        "c": np.frombuffer(b"ACGT", np.uint8)[np.random.default_rng(0).integers(4, size=50000)]
    }
    found = baselines(genome, [Block("c", 0, 40000)], [Block("c", 40000, 50000)])
    for value in found.values():
        assert math.log(4) - 0.001 < value < math.log(4) + 0.06
