"""The data of a run: its genomes, the windows of its splits, and this process's batches of them."""

import logging
import pathlib
from collections.abc import Iterator
from typing import Any

from jax.sharding import Mesh

from caduceus_jax.errors import UserError
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.train.config import PretrainConfig
from caduceus_jax.train.data.batches import (
    Batch,
    check_drawable,
    train_batches,
    validated,
    validation_batches,
)
from caduceus_jax.train.data.sources import (
    check_data_position,
    make_data_position,
    open_stores,
)
from caduceus_jax.train.data.splits import bases, read_splits, without
from caduceus_jax.train.data.windows import Windows
from caduceus_jax.train.sharding import share_of_rows
from caduceus_jax.train.storage.remote import is_remote

log = logging.getLogger(__name__)
_MOSTLY = 0.8  # share of sequence from which on padding is not worth a warning


class Inputs:
    """Opens the genomes and finds the windows of both splits; batches are read when asked for.

    Args:
        config: settings of the run.
        mesh: the devices, which share each batch.
        tokenizer: letters to token ids.
        folder: folder in which the run keeps genomes that it prepares.

    Attributes:
        stores: the genomes.
        splits: the genomes and the blocks of each split.
        train: the windows to train on.
        held_out: the windows to validate on.

    Raises:
        UserError: the genomes cannot be used, or leave nothing to train or validate on.
    """

    def __init__(
        self, config: PretrainConfig, mesh: Mesh, tokenizer: Tokenizer, folder: pathlib.Path
    ):
        self._config, self._tokenizer = config, tokenizer
        self.stores = open_stores(config.data, folder, shared=not is_remote(config.out))
        self.splits = read_splits(self.stores, config.data, config.max_length)
        shape: dict[str, Any] = {"length": config.max_length, "inward": self.splits.inward}
        stride = config.data.stride or config.max_length
        self.train = Windows(
            self.stores, self.splits.train, stride=stride, avoid=self.splits.avoid, **shape
        )
        self.held_out = Windows(
            self.stores, self.splits.validation, stride=config.max_length, **shape
        )
        check_drawable(self.train, config.data)
        if not len(self.held_out):
            raise UserError("nothing is held out to validate on: raise data.validation_fraction")
        self._report_padding()
        share, shares = share_of_rows(mesh)
        self._share = {"batch_size": config.batch_size, "process": share, "processes": shares}

    def _report_padding(self) -> None:
        """Warns if windows are mostly padding."""
        for name, windows in (("training", self.train), ("validation", self.held_out)):
            if (share := windows.sequence_share) < _MOSTLY:
                log.warning(
                    f"{1 - share:.0%} of the tokens of {name} windows are padding, because contigs "
                    f"are shorter than max_length {windows.length:,}: lower max_length, or raise "
                    "data.min_contig"
                )

    @property
    def train_bases(self) -> int:
        """Number of bases that are trained on."""
        return bases(without(self.splits.train, self.splits.avoid))

    @property
    def held_out_bases(self) -> int:
        """Number of bases that are held out to validate on."""
        return bases(self.splits.validation)

    def position(self, step: int) -> dict[str, Any]:
        """Returns the position in the data after a step, as a checkpoint keeps it."""
        return make_data_position(step, self.stores, len(self.train))

    def check(self, position: dict[str, Any]) -> None:
        """Checks that a position is one in these data.

        Raises:
            UserError: the position belongs to other data.
        """
        check_data_position(position, self.stores, len(self.train))

    def train_batches(self, first_step: int) -> Iterator[Batch]:
        """Yields this process's rows of each step's batch, from the step after `first_step`."""
        return train_batches(
            self.train,
            self._config.data,
            self._tokenizer,
            seed=self._config.seed,
            first_step=first_step,
            **self._share,
        )

    def validation_batches(self) -> Iterator[tuple[int, Batch]]:
        """Yields genome, and this process's rows of a batch that is validated on.

        They are the same every time; no batch has windows of two genomes.
        """
        for genome in range(len(self.stores)):
            for batch in validation_batches(
                self.held_out,
                self._config.data,
                self._tokenizer,
                genome=genome,
                **self._share,
            ):
                yield genome, batch

    def held_out_in_words(self) -> str:
        """Describes what is validated on, for the end of a run."""
        held = f"{self.held_out_bases:,} held-out bases"
        seen, windows = len(validated(self.held_out, self._config.data)), len(self.held_out)
        if seen < windows:
            held += f" (the model: in {seen:,} of their {windows:,} windows)"
        return held
