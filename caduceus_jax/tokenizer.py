"""Characters to token ids and back, one token a base."""

import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from caduceus_jax.errors import UserError

# Caduceus' character vocabulary (Schiff et al. 2024, appendix C).
_SPECIAL = ("[CLS]", "[SEP]", "[BOS]", "[MASK]", "[PAD]", "[RESERVED]", "[UNK]")
_VOCABULARY = {token: i for i, token in enumerate((*_SPECIAL, *"ACGTN"))}
_COMPLEMENT = {"A": "T", "C": "G", "G": "C", "T": "A"}


class Tokenizer:
    """One token a character, upper and lower case alike; no special tokens are added.

    Args:
        vocabulary: token -> id; bases are single characters, special tokens are in brackets.
            Default: the original's, `[CLS]` 0 ... `[UNK]` 6, A 7, C 8, G 9, T 10, N 11.

    Attributes:
        vocabulary: token -> id, bases in upper case.
        pad_id: id of `[PAD]`.
        mask_id: id of `[MASK]`.
        unk_id: id of `[UNK]`.
        n_id: id of the base N, or of `[UNK]` where the vocabulary has no N.
        base_ids: ids of A, C, G, T, in this order.
        complement: (largest id + 1,) int32, the complement of each token.
    """

    def __init__(self, vocabulary: Mapping[str, int] = _VOCABULARY):
        self.vocabulary = {
            token.upper() if len(token) == 1 else token: int(i) for token, i in vocabulary.items()
        }
        missing = [t for t in ("[PAD]", "[MASK]", "[UNK]", *"ACGT") if t not in self.vocabulary]
        if missing:
            raise UserError(f"the vocabulary has no {', '.join(missing)}")
        self.pad_id = self.vocabulary["[PAD]"]
        self.mask_id = self.vocabulary["[MASK]"]
        self.unk_id = self.vocabulary["[UNK]"]
        self.n_id = self.vocabulary.get("N", self.unk_id)
        self.base_ids = tuple(self.vocabulary[base] for base in "ACGT")
        self.complement = np.arange(max(self.vocabulary.values()) + 1, dtype=np.int32)
        for base, other in _COMPLEMENT.items():
            self.complement[self.vocabulary[base]] = self.vocabulary[other]
        self._id_of_byte = np.full(256, self.unk_id, np.int32)
        for token, i in self.vocabulary.items():
            if len(token) == 1:
                self._id_of_byte[[ord(token), ord(token.lower())]] = i
        self._token_of_id = {i: token for token, i in self.vocabulary.items()}

    @classmethod
    def from_pretrained(cls, path: str | pathlib.Path) -> "Tokenizer":
        """Reads the vocabulary of a model folder.

        Args:
            path: a folder with `tokenizer.json` (a character-level `tokenizers` file), or with the
                `characters` of the original's `tokenizer_config.json`; the default vocabulary
                where neither is there.

        Raises:
            UserError: the folder is missing, or its tokenizer is not one token a character.
        """
        folder = pathlib.Path(path)
        if not folder.is_dir():
            raise UserError(f"{path} is not a folder: a tokenizer is read from a model's folder")
        full, config = folder / "tokenizer.json", folder / "tokenizer_config.json"
        if full.is_file():
            model = json.loads(full.read_text()).get("model", {})
            vocabulary = model.get("vocab")
            if not isinstance(vocabulary, dict) or any(
                len(token) > 1 and not (token.startswith("[") or token.startswith("<"))
                for token in vocabulary
            ):
                raise UserError(f"{full} is not a character-level tokenizer: one token a base")
            return cls(vocabulary)
        if config.is_file():
            characters = json.loads(config.read_text()).get("characters")
            if characters:
                return cls({t: i for i, t in enumerate((*_SPECIAL, *characters))})
        return cls()

    @property
    def vocab_size(self) -> int:
        """Number of tokens, without rows that only pad an embedding."""
        return len(self.vocabulary)

    def encode(self, sequence: str | bytes) -> np.ndarray:
        """Token ids of a sequence, (length,) int32; letters outside the vocabulary become [UNK]."""
        if isinstance(sequence, str):
            sequence = sequence.encode("ascii", errors="replace")
        return self._id_of_byte[np.frombuffer(sequence, np.uint8)]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The sequence of token ids (length,); special tokens appear in brackets.

        Raises:
            UserError: an id is not in the vocabulary.
        """
        try:
            return "".join(self._token_of_id[int(i)] for i in np.asarray(ids))
        except KeyError as error:
            raise UserError(
                f"token id {error.args[0]} is not in the vocabulary of {self.vocab_size}"
            ) from None

    def reverse_complement(self, ids: np.ndarray) -> np.ndarray:
        """Token ids (..., length) of the other strand, read 5' to 3'."""
        return self.complement[np.asarray(ids)][..., ::-1]
