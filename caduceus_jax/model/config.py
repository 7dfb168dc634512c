"""The architecture of a model, and its translation from and to a Hugging Face `config.json`."""

import dataclasses
import json
import math
from typing import Any, Literal

from caduceus_jax.errors import UserError
from caduceus_jax.model.files import hf_config, original_code
from caduceus_jax.settings import advanced, recipe_only

# Complement of each token of the default vocabulary: A7 <-> T10, C8 <-> G9, the rest themselves.
_COMPLEMENT = (0, 1, 2, 3, 4, 5, 6, 10, 9, 8, 7, 11, 12, 13, 14, 15)


@dataclasses.dataclass(frozen=True)
class CaduceusConfig:
    """Architecture of a Caduceus model (Schiff et al. 2024, sections 3 and 4); hashable.

    >>> config = CaduceusConfig(d_model=118, n_layer=4, rcps=True)
    >>> config.d_inner, config.delta_rank, config.strands
    (236, 8, 2)
    >>> config == CaduceusConfig.from_hf(config.to_hf())
    True

    Args:
        d_model: channels of the residual stream (of one strand).
        n_layer: number of blocks.
        rcps: reverse-complement equivariant by parameter sharing (Caduceus-PS). Otherwise the
            model sees one strand (Caduceus-Ph, made invariant afterwards, or not at all).
        bidirectional: one mixer per reading direction (BiMamba); otherwise plain Mamba.
        bidirectional_strategy: combines the two directions' outputs: "add" or "ew_multiply".
        bidirectional_weight_tie: both directions share `in_proj` and `out_proj`.
        rms_norm: RMSNorm; otherwise LayerNorm.
        norm_epsilon: added to the (mean) square before the root.
        fused_add_norm: the original's fused add + norm path. With `rcps` it feeds each block's
            norm the *other* strand (see `strand_swap`); every released checkpoint has it. It also
            decides whether `hidden_states` ends with the final state, as in the original.
        residual_in_fp32: keep the residual stream in float32 when computing in bfloat16.
        d_state: states per channel of the recurrence (N in Gu & Dao 2023).
        d_conv: width of the causal depthwise convolution.
        expand: inner channels per model channel.
        dt_rank: rank of the projection to delta; "auto" is ceil(d_model / 16).
        dt_min: smallest initial time step.
        dt_max: largest initial time step.
        dt_init: distribution of the initial delta projection: "random" or "constant".
        dt_scale: scale of that distribution.
        dt_init_floor: lower clamp of the initial time step.
        conv_bias: the convolution has a bias.
        bias: `in_proj` and `out_proj` have biases.
        initializer_range: standard deviation of the embedding (and of a classifier's head).
        rescale_prenorm_residual: divide the initial `out_proj` by sqrt(residuals in the network).
        n_residuals_per_layer: residuals per block, for that division.
        vocab_size: tokens, before padding to `pad_vocab_size_multiple`.
        pad_vocab_size_multiple: the embedding has the next multiple of this many rows.
        complement_map: complement of each token id, one entry per row of the embedding.
        pad_token_id: the padding token; also the label that losses ignore.
        tie_word_embeddings: the language-model head reads the embedding.
        hf_json: the Hugging Face config this came from, kept so that saving loses nothing of it;
            it takes no part in equality and hash.

    Raises:
        UserError: a value is out of range or contradicts another.
    """

    d_model: int = 256
    n_layer: int = 4
    rcps: bool = False
    bidirectional: bool = advanced(True)
    bidirectional_strategy: Literal["add", "ew_multiply"] = advanced("add")
    bidirectional_weight_tie: bool = advanced(True)
    rms_norm: bool = advanced(True)
    norm_epsilon: float = recipe_only(1e-5)
    fused_add_norm: bool = advanced(False)
    residual_in_fp32: bool = advanced(False)
    d_state: int = 16
    d_conv: int = advanced(4)
    expand: int = 2
    dt_rank: int | Literal["auto"] = advanced("auto")
    dt_min: float = recipe_only(1e-3)
    dt_max: float = recipe_only(0.1)
    dt_init: Literal["random", "constant"] = recipe_only("random")
    dt_scale: float = recipe_only(1.0)
    dt_init_floor: float = recipe_only(1e-4)
    conv_bias: bool = recipe_only(True)
    bias: bool = recipe_only(False)
    initializer_range: float = recipe_only(0.02)
    rescale_prenorm_residual: bool = recipe_only(True)
    n_residuals_per_layer: int = recipe_only(1)
    vocab_size: int = recipe_only(16)
    pad_vocab_size_multiple: int = recipe_only(8)
    complement_map: tuple[int, ...] = recipe_only(_COMPLEMENT)
    pad_token_id: int = recipe_only(4)
    tie_word_embeddings: bool = True
    hf_json: str = dataclasses.field(
        default="", repr=False, compare=False, metadata={"option": False}
    )

    def __post_init__(self) -> None:
        multiple = self.pad_vocab_size_multiple
        if min(self.d_model, self.n_layer, self.d_state, self.d_conv, self.expand) < 1:
            raise UserError("d_model, n_layer, d_state, d_conv and expand must be at least 1")
        if multiple < 1 or self.vocab_size < 1:
            raise UserError("vocab_size and pad_vocab_size_multiple must be at least 1")
        if self.bidirectional_strategy not in ("add", "ew_multiply"):
            raise UserError(
                f"bidirectional_strategy is {self.bidirectional_strategy!r}; "
                "it is 'add' or 'ew_multiply'"
            )
        if self.dt_init not in ("random", "constant"):
            raise UserError(f"dt_init is {self.dt_init!r}; it is 'random' or 'constant'")
        if self.dt_rank != "auto" and (isinstance(self.dt_rank, str) or self.dt_rank < 1):
            raise UserError(f"dt_rank is {self.dt_rank!r}; it is 'auto' or a positive integer")
        # The embedding has more rows than there are tokens: these map to themselves.
        padded = -(-self.vocab_size // multiple) * multiple
        map_ = tuple(int(i) for i in self.complement_map)
        map_ += tuple(range(len(map_), padded))
        object.__setattr__(self, "vocab_size", padded)
        object.__setattr__(self, "complement_map", map_)
        if len(map_) != padded or any(
            not 0 <= c < padded or map_[c] != i for i, c in enumerate(map_)
        ):
            raise UserError(
                f"complement_map must pair the {padded} token ids with each other: "
                "complement_map[complement_map[i]] == i for each i"
            )

    @property
    def strands(self) -> int:
        """Counts the strands inside the backbone: 2 for Caduceus-PS, otherwise 1."""
        return 2 if self.rcps else 1

    @property
    def d_inner(self) -> int:
        """Counts the channels of the convolution and the recurrence."""
        return self.expand * self.d_model

    @property
    def delta_rank(self) -> int:
        """Returns the rank of the projection to delta, where it is "auto" that of the original."""
        return math.ceil(self.d_model / 16) if self.dt_rank == "auto" else int(self.dt_rank)

    @property
    def strand_swap(self) -> bool:
        """Tells whether each block's norm reads the other strand, as in every released PS model."""
        return self.rcps and self.fused_add_norm

    @classmethod
    def from_hf(cls, hf: dict[str, Any]) -> "CaduceusConfig":
        """Reads a Hugging Face `config.json`; keys that are missing get the original's defaults.

        Args:
            hf: the parsed file. Keys that this project does not use (`architectures`,
                `transformers_version`, `id2label`, ...) are kept for `to_hf`.

        Returns:
            The config; `to_hf` gives `hf` back as long as no field is changed.

        Raises:
            UserError: not a Caduceus config, an unknown or misspelt key, a value of another type
                or an impossible one.
        """
        hf = hf_config.normalised(hf)
        missing = [key for key in ("d_model", "n_layer", "vocab_size") if hf.get(key) is None]
        if missing:
            raise UserError(
                f"the config has no {' and no '.join(missing)}: it is not a Caduceus config.json"
            )
        groups = (hf, hf.get("ssm_cfg") or {}, hf.get("initializer_cfg") or {})
        fields: dict[str, Any] = {"fused_add_norm": True, "residual_in_fp32": True}
        for group, known in zip(
            groups, (hf_config.TOP, hf_config.SSM, hf_config.INITIALIZER), strict=True
        ):
            fields |= {key: group[key] for key in known if group.get(key) is not None}
        if complement := hf.get("complement_map"):
            fields["complement_map"] = tuple(complement.values())
        elif not fields.get("rcps", False):
            # Models that know no complement still have one for the default alphabet.
            size = fields["vocab_size"]
            fields["complement_map"] = _COMPLEMENT[:size] if size >= 12 else tuple(range(size))
        else:
            raise UserError("the config has rcps: true and no complement_map")
        return cls(**fields, hf_json=json.dumps(hf))

    def to_hf(self) -> dict[str, Any]:
        """Writes the Hugging Face `config.json` that the original loads this architecture from."""
        source = json.loads(self.hf_json) if self.hf_json else _HF_DEFAULTS
        before = _hf_fields(CaduceusConfig.from_hf(source)) if self.hf_json else {}
        changed = {
            key: value for key, value in _hf_fields(self).items() if before.get(key) != value
        }
        return {**source, **changed}


_HF_DEFAULTS = {
    "architectures": ["CaduceusForMaskedLM"],
    "auto_map": original_code.auto_map(),
    "model_type": "caduceus",
    "torch_dtype": "float32",
}


def _hf_fields(config: CaduceusConfig) -> dict[str, Any]:
    """Returns the fields under the names and in the groups of a Hugging Face config."""
    fields: dict[str, Any] = {key: getattr(config, key) for key in hf_config.TOP}
    fields["ssm_cfg"] = {key: getattr(config, key) for key in hf_config.SSM}
    fields["ssm_cfg"]["use_fast_path"] = False
    fields["initializer_cfg"] = {key: getattr(config, key) for key in hf_config.INITIALIZER}
    fields["complement_map"] = {str(i): c for i, c in enumerate(config.complement_map)}
    return fields
