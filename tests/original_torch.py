"""Runs the original's own modelling code, in an interpreter of its own: torch and transformers.

    python tests/original_torch.py FOLDER INPUTS.npz OUTPUTS.npz [--adapter FOLDER]

The original needs CUDA packages. What it imports of them is given here in plain PyTorch, written
from the papers' equations: the mixer (Gu & Dao 2023, eqs. 2-4), RMSNorm, and add + norm.
"""

import argparse
import math
import sys
import types

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Mamba(nn.Module):
    """The mixer of one direction, a loop over tokens."""

    def __init__(
        self,
        d_model,
        d_state=16,
        d_conv=4,
        expand=2,
        dt_rank="auto",
        conv_bias=True,
        bias=False,
        **_,
    ):
        super().__init__()
        inner = expand * d_model
        self.rank = math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        self.d_state = d_state
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=bias)
        self.conv1d = nn.Conv1d(
            inner, inner, d_conv, groups=inner, padding=d_conv - 1, bias=conv_bias
        )
        self.x_proj = nn.Linear(inner, self.rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        self.A_log = nn.Parameter(torch.zeros(inner, d_state))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, d_model, bias=bias)

    def forward(self, hidden_states, inference_params=None):
        length = hidden_states.shape[1]
        x, z = self.in_proj(hidden_states).chunk(2, dim=-1)
        x = functional.silu(self.conv1d(x.transpose(1, 2))[..., :length]).transpose(1, 2)
        delta, b, c = self.x_proj(x).split([self.rank, self.d_state, self.d_state], dim=-1)
        delta = functional.softplus(self.dt_proj(delta))
        a = -torch.exp(self.A_log)
        state, outputs = torch.zeros(len(x), *a.shape), []
        for t in range(length):
            step = delta[:, t, :, None]
            state = torch.exp(step * a) * state + step * b[:, t, None] * x[:, t, :, None]
            outputs.append((state * c[:, t, None]).sum(-1))
        y = torch.stack(outputs, dim=1) + self.D * x
        return self.out_proj(y * functional.silu(z))


class RMSNorm(nn.Module):
    """Divides by the root of the mean square."""

    def __init__(self, size, eps=1e-5, **_):
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.ones(size)), None, eps

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)


def _add_norm(norm):
    """The fused form of adding to the residual stream and normalising."""

    def function(
        x, weight, bias, residual=None, eps=1e-6, prenorm=False, residual_in_fp32=False, **_
    ):
        x = x if residual is None else x + residual
        out = norm(x, weight, bias, eps)
        return (out, x) if prenorm else out

    return function


def _rms(x, weight, bias, eps):
    return weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def _layer(x, weight, bias, eps):
    return functional.layer_norm(x, x.shape[-1:], weight, bias, eps)


class Block(nn.Module):
    """Add, norm, mix, on one strand."""

    def __init__(self, dim, mixer_cls, norm_cls=nn.LayerNorm, fused_add_norm=False, **_):
        super().__init__()
        self.mixer, self.norm = mixer_cls(dim), norm_cls(dim)

    def forward(self, hidden_states, residual=None, inference_params=None):
        residual = hidden_states if residual is None else hidden_states + residual
        return self.mixer(self.norm(residual)), residual


def install():
    """Puts the stand-in where the original looks for the CUDA packages."""
    contents = {
        "mamba_ssm": {},
        "mamba_ssm.modules": {},
        "mamba_ssm.modules.mamba_simple": {"Mamba": Mamba, "Block": Block},
        "mamba_ssm.ops": {},
        "mamba_ssm.ops.triton": {},
        "mamba_ssm.ops.triton.layernorm": {
            "RMSNorm": RMSNorm,
            "rms_norm_fn": _add_norm(_rms),
            "layer_norm_fn": _add_norm(_layer),
        },
    }
    for name, attributes in contents.items():
        module = types.ModuleType(name)
        module.__path__ = []
        vars(module).update(attributes)
        sys.modules[name] = module


def draw_adapter(model, folder):
    """A model with a random adapter on every projection, which PEFT stores, not merged."""
    import peft

    torch.manual_seed(0)
    targets = ["in_proj", "out_proj", "x_proj", "dt_proj"]
    model = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=targets))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    return model


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("inputs")
    parser.add_argument("outputs")
    parser.add_argument("--adapter")
    parser.add_argument("--draw-adapter", help="folder for a random adapter made by PEFT")
    arguments = parser.parse_args()
    install()
    import transformers

    transformers.logging.set_verbosity_error()
    trusted = {"trust_remote_code": True}
    config = transformers.AutoConfig.from_pretrained(arguments.folder, **trusted)
    classifier = "SequenceClassification" in config.architectures[0]
    auto = (
        transformers.AutoModelForSequenceClassification
        if classifier
        else transformers.AutoModelForMaskedLM
    )
    model, loading = auto.from_pretrained(arguments.folder, output_loading_info=True, **trusted)
    if arguments.adapter:
        import peft

        model = peft.PeftModel.from_pretrained(model, arguments.adapter).merge_and_unload()
    if arguments.draw_adapter:
        model = draw_adapter(model, arguments.draw_adapter)
    model.eval()
    given = np.load(arguments.inputs)
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.folder, **trusted)
    with torch.no_grad():
        logits = model(torch.as_tensor(given["input_ids"], dtype=torch.long)).logits
    np.savez(
        arguments.outputs,
        logits=logits.numpy(),
        missing=np.array(sorted(loading["missing_keys"]), dtype=str),
        unexpected=np.array(sorted(loading["unexpected_keys"]), dtype=str),
        tokens=np.array(tokenizer("ACGTNacgtn", add_special_tokens=False)["input_ids"]),
        tokenizer=type(tokenizer).__name__,
        again=np.array([f"{n} {tuple(p.shape)}" for n, p in model.state_dict().items()], dtype=str),
    )
    if not arguments.draw_adapter:
        model.save_pretrained(arguments.outputs + ".saved")


if __name__ == "__main__":
    main()
