"""The original's forward pass in plain NumPy, float64, from tensors under its own names.

Written the way the original works, not the way this project does: a strand is half of the channels,
a direction is a flip, each direction has projections of its own, time is a loop. So it answers for
settings of which there is no golden case.
"""

import numpy as np


def logits(config, tensors, ids):
    """(batch, length, vocab) logits of a masked language model."""
    hidden, table = last_hidden_state(config, tensors, ids)
    untied = "lm_head.lm_head.weight" if config.rcps else "lm_head.weight"
    head = table if config.tie_word_embeddings else np.asarray(tensors[untied], np.float64)
    if not config.rcps:
        return hidden @ head.T
    complement = np.asarray(config.complement_map)
    strand, other = np.split(hidden, 2, axis=-1)
    return strand @ head.T + other[..., ::-1] @ head[complement].T


def last_hidden_state(config, tensors, ids):
    """(batch, length, d_model or twice that), and the table of embeddings."""
    tensors = {name: np.asarray(t, np.float64) for name, t in tensors.items()}
    backbone = _under(tensors, "caduceus.backbone.")
    word = "embedding.weight" if config.rcps else "weight"
    table = backbone[f"embeddings.word_embeddings.{word}"]
    complement = np.asarray(config.complement_map)
    hidden = table[ids]
    if config.rcps:
        hidden = np.concatenate([hidden, _rc(table[complement[ids[:, ::-1]]])], axis=-1)
    residual = np.zeros_like(hidden)
    for i in range(config.n_layer):
        residual = residual + hidden
        layer = _under(backbone, f"layers.{i}.")
        if config.rcps and config.fused_add_norm:
            # Each half is computed from the other one, reverse-complemented: the strand swap.
            one, other = np.split(residual, 2, axis=-1)
            residual = np.concatenate([other, one], axis=-1)
        normed = _both(config, residual, lambda x, layer=layer: _norm(config, layer, "norm", x))
        hidden = _both(config, normed, lambda x, layer=layer: _mixer(config, layer, x))
    return _both(config, residual + hidden, lambda x: _norm(config, backbone, "norm_f", x)), table


def _both(config, x, function):
    """Applies `function` to both strands: the second is read as a sequence of its own."""
    if not config.rcps:
        return function(x)
    strand, other = np.split(x, 2, axis=-1)
    return np.concatenate([function(strand), _rc(function(_rc(other)))], axis=-1)


def _rc(x):
    return x[:, ::-1, ::-1]


def _norm(config, tensors, name, x):
    weight = tensors.get(f"{name}.weight", tensors.get(f"{name}.submodule.weight"))
    if config.rms_norm:
        return weight * x / np.sqrt(np.mean(x**2, -1, keepdims=True) + config.norm_epsilon)
    bias = tensors.get(f"{name}.bias", tensors.get(f"{name}.submodule.bias"))
    x = x - x.mean(-1, keepdims=True)
    return weight * x / np.sqrt(np.mean(x**2, -1, keepdims=True) + config.norm_epsilon) + bias


def _mixer(config, layer, x):
    mixer = _under(layer, "mixer.submodule." if config.rcps else "mixer.")
    forward = _under(mixer, "mamba_fwd.")
    out = _mamba(forward, x)
    if not config.bidirectional:
        return out
    # Tied projections are stored once.
    out_reverse = _mamba(forward | _under(mixer, "mamba_rev."), x[:, ::-1])[:, ::-1]
    return (
        out * out_reverse if config.bidirectional_strategy == "ew_multiply" else out + out_reverse
    )


def _mamba(p, x):
    u, z = np.split(_linear(p, "in_proj", x), 2, axis=-1)
    width = p["conv1d.weight"].shape[-1]
    padded = np.pad(u, ((0, 0), (width - 1, 0), (0, 0)))
    taps = [padded[:, k : k + u.shape[1]] * p["conv1d.weight"][:, 0, k] for k in range(width)]
    u = _silu(sum(taps) + p.get("conv1d.bias", 0))
    rank, state = p["dt_proj.weight"].shape[1], p["A_log"].shape[1]
    delta, b, c = np.split(_linear(p, "x_proj", u), [rank, rank + state], axis=-1)
    delta = np.logaddexp(0, _linear(p, "dt_proj", delta))
    h = np.zeros((len(x), *p["A_log"].shape))
    y = np.empty_like(u)
    for t in range(x.shape[1]):
        step = delta[:, t, :, None]
        h = np.exp(-step * np.exp(p["A_log"])) * h + step * b[:, t, None] * u[:, t, :, None]
        y[:, t] = (h * c[:, t, None]).sum(-1) + p["D"] * u[:, t]
    return _linear(p, "out_proj", y * _silu(z))


def _linear(p, name, x):
    return x @ p[f"{name}.weight"].T + p.get(f"{name}.bias", 0)


def _silu(x):
    return x / (1 + np.exp(-x))


def _under(tensors, prefix):
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
