"""What variants change in the outputs of a fine-tuned model: two windows for each variant."""

import dataclasses

import numpy as np
import polars
from jaxtyping import Float

from caduceus_jax.genomics.scoring.variant_passes import Alleles, Scorer, joined_scores
from caduceus_jax.genomics.status import Status
from caduceus_jax.inference.batches import TokenRows


class OutputChange:
    """Outputs of the window with ALT compared with those of the window with REF.

    Args:
        scorer: the model's outputs and all else that scores need.
        sites: the changes of a block.

    Attributes:
        tokens: (passes, tokens) ids of the windows, completed on the left where the model needs it.
        extra: None: every token is real.
        item: shape of the outputs of a window.
        padded: windows that reach beyond their contigs, with N for what is there.
    """

    extra: None = None

    def __init__(self, scorer: Scorer, sites: polars.DataFrame):
        assert scorer.outputs is not None
        length, self._outputs = scorer.options.context, scorer.outputs
        # All of the window is compared, so that an allele may fill it.
        whole = dataclasses.replace(scorer.options, window=length)
        self._alleles = Alleles(scorer._replace(options=whole), sites)
        self.padded = self._alleles.padded
        windows = self._alleles.tokens(self._alleles.context, length)
        self.tokens = _Completed(windows, self._outputs.run_length(length), self._outputs.pad_id)
        self.item = self._outputs.shape(self.tokens.shape[1])

    def scores(self, values: Float[np.ndarray, "passes ..."]) -> polars.DataFrame:
        """Returns the status of each row and what it changes."""
        changes, names = self._alleles.changes, self._outputs.columns
        ref, alt = (values[changes[name].to_numpy()] for name in ("ref", "alt"))
        found = self._outputs.changes(ref, alt)
        scored = changes.select("row").with_columns(
            polars.Series(name, found[:, i]) for i, name in enumerate(names)
        )
        none = changes.select("row", status=polars.lit(Status.OK.value))
        return joined_scores(self._alleles.sites, none, scored, names)


class _Completed:
    """Rows of token ids with padding on the left; `length` tokens each."""

    def __init__(self, rows: TokenRows, length: int, pad_id: int):
        self.shape = (rows.shape[0], length)
        self._rows, self._pad_id = rows, pad_id

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        found = np.asarray(self._rows[rows])
        left = self.shape[1] - found.shape[1]
        return np.pad(found, ((0, 0), (left, 0)), constant_values=self._pad_id)
