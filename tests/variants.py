"""Variants, and their scores, for the tests of the verb and of its command."""

from typing import NamedTuple

import numpy as np

from caduceus_jax.genomics.score_variants import score_variants
from caduceus_jax.genomics.variant import Variants


class Scores(NamedTuple):
    status: np.ndarray
    llr: np.ndarray


def score(*arguments, **options) -> Scores:
    """Status and masked log-likelihood ratio of each row."""
    frame = score_variants(*arguments, **options)
    return Scores(frame["status"].to_numpy(), frame["llr"].fill_null(np.nan).to_numpy())


def make(*rows: tuple[str, int, str, str | None]) -> Variants:
    """Variants of one ALT each; positions are 0-based."""
    chrom, position, ref, alt = zip(*rows, strict=True)
    number = np.arange(len(rows))
    return Variants(number, number + 1, list(chrom), np.array(position), list(ref), list(alt))
