"""`caduceus-jax bench model`: a whole model timed."""

import json
import resource
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from caduceus_jax.bench import measure
from caduceus_jax.devices import sharing_sequences, use_cores
from caduceus_jax.errors import UserError
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.model.heads import CaduceusForMaskedLM
from caduceus_jax.model.losses import masked_lm_loss


def model(
    *,
    batch: int = 1,
    length: int = 1024,
    dtype: Literal["float32", "bfloat16"] = "float32",
    repeats: int = 10,
    d_model: int = 128,
    n_layer: int = 4,
    forward_only: bool = False,
) -> None:
    """Times a whole model and prints one JSON object.

    The model is Caduceus-PS: a forward pass, and a step that also takes every gradient. All cores
    of a CPU share each sequence. Times are in milliseconds: median, minimum and maximum of the
    repeats, after one run that is not timed; compilation is timed separately. The memory is the
    peak of the process.

    examples:
      caduceus-jax bench model --d-model 256 --n-layer 16 --length 131072 --forward-only

    Args:
        batch: number of sequences.
        length: tokens per sequence.
        dtype: dtype of activations; the recurrence runs in float32.
        repeats: number of timed runs.
        d_model: channels of the model.
        n_layer: blocks of the model.
        forward_only: do not time gradients.

    Raises:
        UserError: a size below 1.
    """
    if min(batch, length, repeats, d_model, n_layer) < 1:
        raise UserError("sizes and repeats are at least 1")
    use_cores()
    config = CaduceusConfig(d_model=d_model, n_layer=n_layer, rcps=True)
    caduceus = CaduceusForMaskedLM(config, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))
    ids = jax.random.randint(jax.random.key(0), (batch, length), 7, 11)

    def forward(model: CaduceusForMaskedLM, ids: jax.Array) -> jax.Array:
        """Computes the logits."""
        return model(ids).logits

    def gradient(model: CaduceusForMaskedLM, ids: jax.Array) -> Any:
        """Computes the loss and the gradient of every parameter."""
        return jax.value_and_grad(lambda m: masked_lm_loss(forward(m, ids), ids))(model)

    report: dict[str, Any] = {
        "suite": "model",
        "dtype": dtype,
        **measure.platform_of_jax(),
        "shape": {"batch": batch, "length": length, "d_model": d_model, "n_layer": n_layer},
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(caduceus)),
    }
    runs = {"forward": forward} | ({} if forward_only else {"forward_backward": gradient})
    for name, function in runs.items():
        with sharing_sequences():
            times = measure.timed(function, (caduceus, ids), repeats)
        report[name] = times | {"tokens_per_s": 1e3 * ids.size / times["median_ms"]}
    # Kibibytes on Linux.
    report["peak_memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(report, indent=2))
