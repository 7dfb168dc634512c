"""Characters to token ids and back, one token per base."""

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from caduceus_jax.errors import UserError
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.model.files import hf_config, tokenizer_files

# Caduceus' character vocabulary (Schiff et al. 2024, appendix C).
_VOCABULARY = {t: i for i, t in enumerate((*tokenizer_files.ORIGINAL_SPECIAL, *"ACGTN"))}
# A base, or the letter for several bases, and its complement (IUPAC).
_PAIRS = ("AT", "CG", "RY", "KM", "BV", "DH")


class Tokenizer:
    """Turns each character into one token, and back; no special tokens are added.

    >>> tokenizer = Tokenizer()
    >>> tokenizer.encode("ACGTN")
    array([ 7,  8,  9, 10, 11], dtype=int32)
    >>> tokenizer.decode(tokenizer.reverse_complement(tokenizer.encode("AACG")))
    'CGTT'

    Args:
        vocabulary: token -> id; bases are single characters, special tokens are in brackets.
            Default: the original's, `[CLS]` 0 ... `[UNK]` 6, A 7, C 8, G 9, T 10, N 11. Upper and
            lower case are read alike, unless the vocabulary has both cases of a letter.
        pad_token: the padding token's name in the vocabulary.
        mask_token: the name of the token that hides a base to be predicted.
        unk_token: the name of the token for characters outside the vocabulary.

    Attributes:
        vocabulary: token -> id, bases in upper case where case makes no difference.
        pad_id: id of `[PAD]`.
        mask_id: id of `[MASK]`.
        unk_id: id of `[UNK]`.
        n_id: id of the base N, or of `[UNK]` where the vocabulary has no N.
        base_ids: ids of A, C, G, T, in this order.
        complement: (largest id + 1,) int32, the complement of each token.

    Raises:
        UserError: the vocabulary lacks a base or one of the three special tokens.
    """

    def __init__(
        self,
        vocabulary: Mapping[str, int] = _VOCABULARY,
        *,
        pad_token: str = "[PAD]",
        mask_token: str = "[MASK]",
        unk_token: str = "[UNK]",
    ):
        self._stored: dict[str, str] = {}  # the files that this came from
        self._names = {"pad_token": pad_token, "mask_token": mask_token, "unk_token": unk_token}
        self.vocabulary = {_one_case(token, vocabulary): int(i) for token, i in vocabulary.items()}
        # The case in which a tokenizer's own files spell each letter.
        self._spelt = {_one_case(token, vocabulary): token for token in vocabulary}
        required = (pad_token, mask_token, unk_token, *"ACGT")
        missing = [token for token in required if token not in self.vocabulary]
        if missing:
            raise UserError(f"the vocabulary has no {', '.join(missing)}")
        self.pad_id = self.vocabulary[pad_token]
        self.mask_id = self.vocabulary[mask_token]
        self.unk_id = self.vocabulary[unk_token]
        self.n_id = self.vocabulary.get("N", self.unk_id)
        self.base_ids = tuple(self.vocabulary[base] for base in "ACGT")
        self.complement = np.arange(max(self.vocabulary.values()) + 1, dtype=np.int32)
        for one, other in [pair for pair in _PAIRS] + [pair.lower() for pair in _PAIRS]:
            if one in self.vocabulary and other in self.vocabulary:
                self.complement[self.vocabulary[one]] = self.vocabulary[other]
                self.complement[self.vocabulary[other]] = self.vocabulary[one]
        self._id_of_byte = np.full(256, self.unk_id, np.int32)
        for token, i in self.vocabulary.items():
            if len(token) == 1 and token.isascii():
                both = token.swapcase() not in self.vocabulary
                self._id_of_byte[[ord(token), ord(token.swapcase() if both else token)]] = i
        self._token_of_id = {i: token for token, i in self.vocabulary.items()}

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> "Tokenizer":
        """Reads the tokenizer of a model.

        Args:
            path: a folder, the folder of a run, a file of weights in such a folder, a hub id or a
                short name. The files read are `tokenizer.json` (a character-level tokenizer of the
                `tokenizers` library), `vocab.json`, `vocab.txt`, or the `characters` of the
                original's `tokenizer_config.json`; without any of them, the model is taken to have
                the original's vocabulary.
            revision: branch, tag or commit of the hub's repository.
            token: access token of the hub; by default that of the account that is logged in.
            cache_dir: folder for downloads.

        Raises:
            UserError: nothing there, a tokenizer that is not one token per character, or a model
                without tokenizer files whose vocabulary is not the original's.
        """
        folder = pathlib.Path(path)
        if folder.is_file():
            folder = folder.parent
        if not folder.is_dir():
            # Imported here, so that a tokenizer alone does not load the hub's client.
            from caduceus_jax.model.files import locate

            try:
                folder = locate.locate(
                    path, revision=revision, token=token, cache_dir=cache_dir, weights=False
                )
            except UserError as error:
                raise UserError(
                    f"{path} is not a folder, from which a tokenizer could be read ({error})"
                ) from None
        for candidate in _places(folder):
            if found := tokenizer_files.read(candidate):
                names = {k: found.names[k] for k in cls()._names if k in found.names}
                tokenizer = cls(found.vocabulary, **names)
                tokenizer._stored = found.texts
                return tokenizer
        for candidate in _places(folder):
            if (candidate / "config.json").is_file():
                config = CaduceusConfig.from_hf(hf_config.read(candidate / "config.json"))
                if (default := cls.of_config(config)) is None:
                    raise UserError(
                        f"{candidate} has no tokenizer files, and its vocabulary is not the "
                        "original's: copy tokenizer.json of the model that it came from there"
                    )
                return default
        return cls()

    @classmethod
    def of_config(cls, config: CaduceusConfig) -> "Tokenizer | None":
        """Returns the original's tokenizer where an architecture can be made for it, else None.

        Args:
            config: the architecture. It tells the number of tokens and their complements, not
                their names.
        """
        default = cls()
        complements = config.complement_map[: len(default.complement)]
        unknown = complements == tuple(range(len(complements)))
        if config.vocab_size < len(default.complement):
            return None
        return default if unknown or complements == tuple(default.complement.tolist()) else None

    def save_pretrained(self, path: str | os.PathLike[str]) -> None:
        """Writes the files that `from_pretrained` and `transformers.AutoTokenizer` read.

        Args:
            path: the folder to write to. A tokenizer that was read from files is written as it
                was read, byte by byte.
        """
        folder = pathlib.Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        spelt = {self._spelt[token]: i for token, i in self.vocabulary.items()}
        texts = self._stored or tokenizer_files.texts(spelt, self._names)
        for name in {*tokenizer_files.NAMES} - set(texts):
            (folder / name).unlink(missing_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokenizer):
            return NotImplemented
        return self.vocabulary == other.vocabulary and self._names == other._names

    def __hash__(self) -> int:
        return hash(frozenset(self.vocabulary.items()))

    def __repr__(self) -> str:
        return f"Tokenizer({self.vocabulary})"

    @property
    def vocab_size(self) -> int:
        """Number of tokens, without rows that only pad an embedding."""
        return len(self.vocabulary)

    def encode(self, sequence: str | bytes) -> np.ndarray:
        """Returns the token ids of a sequence.

        >>> Tokenizer().encode("acgtRX")
        array([ 7,  8,  9, 10,  6,  6], dtype=int32)

        Args:
            sequence: DNA; each character becomes one token.

        Returns:
            (length,) int32; letters outside the vocabulary become [UNK].

        Raises:
            UserError: not one sequence.
        """
        if isinstance(sequence, str):
            sequence = sequence.encode("ascii", errors="replace")
        try:
            return self._id_of_byte[np.frombuffer(sequence, np.uint8)]
        except TypeError:
            kind = type(sequence).__name__
            raise UserError(f"sequence is a {kind}; it is one str, or bytes") from None

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Returns the sequence that token ids stand for.

        >>> Tokenizer().decode([3, 7, 11, 4])
        '[MASK]AN[PAD]'

        Args:
            ids: (length,) token ids.

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
        """Returns the tokens of the other strand, read 5' to 3'.

        Args:
            ids: (..., length) token ids.

        Returns:
            (..., length), the complements in reverse order.
        """
        return self.complement[np.asarray(ids)][..., ::-1]


def _one_case(token: str, vocabulary: Mapping[str, int]) -> str:
    """Returns the token in upper case, unless upper and lower case differ in the vocabulary."""
    if len(token) > 1 or vocabulary.get(token.swapcase(), vocabulary[token]) != vocabulary[token]:
        return token
    return token.upper()


def _places(folder: pathlib.Path) -> list[pathlib.Path]:
    """Lists where the files of a model may be, given its folder, a run's or a checkpoint's."""
    places = [folder, folder / "model", folder / "tokenizer"]
    if folder.parent.name == "checkpoints":
        run = folder.parent.parent
        places += [run, run / "model", run / "tokenizer"]
    return places
