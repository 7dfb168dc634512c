"""Masking: few passes over small integers, one random number per token."""

import numpy as np

from caduceus_jax.tokenizer import Tokenizer

# Devlin et al. (2019), section 3.1: the shares of the chosen tokens that are masked and replaced.
_HIDDEN, _REPLACED = 0.8, 0.1


class CounterRng:
    """Draws random numbers by what they are for, whatever was drawn before them.

    Philox (Salmon et al. 2011) enciphers a counter: any place of the stream is as near as the
    next. Its numbers are the same on every machine and in every version of NumPy.

    Args:
        seed: the seed of the run.
        purpose: streams of different purposes have nothing to do with each other.
    """

    def __init__(self, seed: int, purpose: int):
        self._philox = np.random.Philox(key=np.array([seed, purpose], np.uint64))
        self._state = self._philox.state

    def of(self, example: int, tokens: int, *, mask: int = 0) -> tuple[bool, np.ndarray]:
        """Draws the numbers of an example.

        Args:
            example: its number.
            tokens: number of its tokens.
            mask: number of the mask, for examples that are masked several times.

        Returns:
            A coin, and (tokens,) uint32.
        """
        self._state["state"]["counter"] = np.array([0, 0, example, mask], np.uint64)
        self._state["buffer_pos"] = 4  # nothing is left over from another example
        self._philox.state = self._state
        raw = self._philox.random_raw(1 + -(-tokens // 2))
        return bool(raw[0] >> np.uint64(63)), raw[1:].view(np.uint32)[:tokens]


def letter_table(tokenizer: Tokenizer, *, complement: bool = False) -> bytes:
    """Makes a table for `bytes.translate`: letters (or their complements) to ids; N to [PAD]."""
    ids = tokenizer.encode(bytes(range(256)))
    if complement:
        ids = tokenizer.complement[ids]
    return np.where(ids == tokenizer.n_id, tokenizer.pad_id, ids).astype(np.uint8).tobytes()


def mask_tokens(
    ids: np.ndarray, draws: np.ndarray, *, probability: float, tokenizer: Tokenizer
) -> tuple[np.ndarray, np.ndarray]:
    """Masks some tokens, as the original does (Devlin et al. 2019, section 3.1).

    Each token is chosen with the same probability, special ones too. Of the chosen, 80 % become
    [MASK], 10 % any token of the vocabulary and 10 % stay. N is [PAD] in `ids` already, in what
    the model reads and in what it is asked for, so it never counts.

    Args:
        ids: uint8 token ids of any shape.
        draws: uint32, like `ids`; each decides everything about its token.
        probability: probability that a token is chosen.
        tokenizer: the vocabulary.

    Returns:
        What the model reads, and what it should say: [PAD] where nothing is asked. Both like
        `ids`.
    """
    most = 2**32
    chosen = min(round(probability * most), most - 1)
    hidden = round(probability * _HIDDEN * most)
    replaced = round(probability * (_HIDDEN + _REPLACED) * most)
    at = np.flatnonzero(draws < np.uint32(chosen))
    drawn, was = draws.ravel()[at], ids.ravel()[at]
    # Where in [hidden, replaced) a number lies decides the token; all are equally likely.
    token = (drawn.astype(np.int64) - hidden) * tokenizer.vocab_size // max(replaced - hidden, 1)
    token = np.where(drawn < replaced, token.astype(np.uint8), was)
    read, labels = ids.copy(), np.full_like(ids, tokenizer.pad_id)
    read.ravel()[at] = np.where(drawn < hidden, np.uint8(tokenizer.mask_id), token)
    labels.ravel()[at] = was
    return read, labels
