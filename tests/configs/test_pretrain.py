"""The shipped recipes of pretrainings are those of the paper."""

import jax
import pytest
from flax import nnx

from caduceus_jax import CaduceusForMaskedLM
from caduceus_jax.cli.arguments import read_config
from caduceus_jax.configs import recipes, resolve
from caduceus_jax.train.config import OptimizerConfig, PretrainConfig

# d_model, n_layer, tokens per window, steps, parameters of the released models.
PAPER = {
    "1k_118": (118, 4, 1_024, 10_000, 470_702),
    "1k": (256, 4, 1_024, 10_000, 1_934_592),
    "32k": (256, 8, 32_768, 10_000, 3_864_832),
    "131k": (256, 16, 131_072, 50_000, 7_725_312),
}
PUBLISHED = {f"caduceus_{kind}_{name}": name for kind in ("ph", "ps") for name in PAPER}
# The same for other devices.
VARIANTS = {"caduceus_ps_131k_v5e256": "131k", "caduceus_ps_131k_8gpu": "131k"}
OURS = {"caduceus_ps_1m", "quickstart"}
PRETRAINING = [name for name in recipes() if "/" not in name]


@pytest.fixture(scope="module")
def configs():
    return {name: read_config(PretrainConfig, ["--config", name]) for name in PRETRAINING}


def test_every_pretraining_of_the_paper_is_there(configs):
    assert set(configs) == set(PUBLISHED) | set(VARIANTS) | OURS


def test_every_recipe_has_its_folder_and_says_how_it_is_run(configs):
    for name, config in configs.items():
        head = resolve(name).read_text().split("\n\n")[0].splitlines()
        assert all(line.startswith("#") and len(line) <= 100 for line in head)
        assert f"#   caduceus-jax pretrain --config {name}" in head
        assert any(line.startswith("# Hardware: ") for line in head), name
        assert any("expected" in line.lower() for line in head), name
        assert config.out == f"runs/{name}"


def test_recipes_of_the_paper_are_the_papers(configs):
    counted = {}
    for name, row in (PUBLISHED | VARIANTS).items():
        config = configs[name]
        d_model, n_layer, length, steps, parameters = PAPER[row]
        model = config.model
        assert (model.d_model, model.n_layer, config.max_length) == (d_model, n_layer, length)
        assert config.batch_size * config.max_length == 2**20
        assert config.steps == steps
        assert config.optimizer == OptimizerConfig(
            lr=8e-3,
            lr_init=1e-6,
            lr_min=1e-4,
            warmup_fraction=0.1,
            beta1=0.9,
            beta2=0.95,
            weight_decay=0.1,
            clip_norm=1.0,
        )
        assert model.bidirectional and model.bidirectional_weight_tie
        assert model.bidirectional_strategy == "add"
        assert config.data.mask_probability == 0.15
        assert config.data.intervals and config.data.interval_length == 2**20
        equivariant = "_ps_" in name
        assert model.rcps == equivariant
        assert config.data.rc_mode == ("equivariant" if equivariant else "augment")
        if model not in counted:
            skeleton = nnx.eval_shape(lambda m=model: CaduceusForMaskedLM(m, rngs=nnx.Rngs(0)))
            leaves = jax.tree.leaves(nnx.state(skeleton, nnx.Param))
            counted[model] = sum(leaf.size for leaf in leaves)
        assert counted[model] == parameters
        assert f"{parameters:,} parameters" in resolve(name).read_text()


def test_variants_fill_their_devices_and_the_long_window_is_a_step(configs):
    pod, box = configs["caduceus_ps_131k_v5e256"], configs["caduceus_ps_131k_8gpu"]
    assert pod.batch_size * pod.sequence == 256
    assert box.batch_size * box.sequence == 8
    million = configs["caduceus_ps_1m"]
    assert million.batch_size * million.max_length == million.max_length == 2**20
    assert million.sequence == 8
