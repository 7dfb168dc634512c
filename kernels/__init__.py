"""The selective scan and the causal convolution, on every platform JAX runs on.

This package knows nothing of models: it takes arrays and imports JAX only.
"""

from caduceus_jax.kernels.causal_conv import bidirectional_conv1d as bidirectional_conv1d
from caduceus_jax.kernels.causal_conv import causal_conv1d as causal_conv1d
from caduceus_jax.kernels.causal_conv import (
    causal_conv1d_with_state as causal_conv1d_with_state,
)
from caduceus_jax.kernels.options import Chunked as Chunked
from caduceus_jax.kernels.options import MosaicTPU as MosaicTPU
from caduceus_jax.kernels.options import PallasTriton as PallasTriton
from caduceus_jax.kernels.options import Reference as Reference
from caduceus_jax.kernels.options import Triton as Triton
from caduceus_jax.kernels.selective_scan import selective_scan as selective_scan
from caduceus_jax.kernels.selective_scan import (
    selective_scan_with_state as selective_scan_with_state,
)
