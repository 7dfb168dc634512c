"""The same run is the same to the bit; on another machine, to as many digits as rounding leaves.

What a CPU computes depends on how wide its vectors are, because sums are taken in another order:
with SSE4.2, AVX2 and AVX-512 the same ten steps end with three different digests, and losses that
agree to seven digits (XLA_FLAGS=--xla_cpu_max_isa=AVX2 shows it; the number of threads changes
nothing). So the digest is only compared on processors that it was recorded on, and losses
everywhere, as numbers: text would differ where the last digit is rounded the other way.

    python -m tests.train.test_determinism

prints what to record for this version of JAX on this processor.
"""

import dataclasses
import functools
import hashlib
import pathlib

import jax
import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax.train.config import OptimizerConfig, PretrainConfig
from caduceus_jax.train.sharding import init_sharded, make_mesh, shard_batch
from caduceus_jax.train.step import make_program

TOKENIZER = cj.Tokenizer()
CONFIG = PretrainConfig(
    model=cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, rcps=True),
    optimizer=OptimizerConfig(warmup_fraction=0.2),
    steps=50,
    batch_size=4,
    max_length=32,
)
RECORDED_STEPS = 10
EPYC = "AMD EPYC 25fc08b1"
# The same losses for every version so far. Digests by minor version of JAX, and by processor.
LOSSES = [2.826171, 2.838785, 2.833447, 2.786575, 2.770072]
LOSSES += [2.757557, 2.701081, 2.687916, 2.598982, 2.482687]
DIGESTS = {
    "0.10": {EPYC: "b6016451b11148a379fa709de240fec7883644683cd5afa56763668321c17cb7"},
    "0.11": {EPYC: "261812228d581e258eb7f9429c5736d2e52f125a523ed0428b2e94b32463c41c"},
    "0.12": {EPYC: "c7908133b8bfe65cb011194c366edec882703517c94d6da611a5ba773bfeff9d"},
}
# Six digits: float32 rounds to 6e-8, a few times over.
LOSS = 1e-6


def train(program, mesh):
    """Losses, and the SHA-256 of all parameters by step, where they are compared."""
    rng = np.random.default_rng(0)
    state, losses, digests = init_sharded(program.init, mesh), [], {}
    for step in range(1, CONFIG.steps + 1):
        labels = rng.integers(7, 11, (CONFIG.batch_size, CONFIG.max_length)).astype(np.int32)
        asked = rng.random(labels.shape) < 0.3
        batch = {
            "input_ids": np.where(asked, TOKENIZER.mask_id, labels).astype(np.int32),
            "labels": np.where(asked, labels, TOKENIZER.pad_id).astype(np.int32),
            "weights": np.ones(labels.shape, np.float32),
        }
        state, metrics = program.train_step(state, shard_batch(batch, mesh))
        losses.append(float(metrics["loss"]))
        if step in (len(LOSSES), CONFIG.steps):
            digests[step] = digest(jax.device_get(state.params))
    return losses, digests


def digest(params):
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        total.update(np.ascontiguousarray(leaf).tobytes())
    return total.hexdigest()


@functools.cache
def trained(scan="chunked", devices=1, sequence=1):
    """What two runs of one program leave."""
    mesh = make_mesh(jax.devices()[:devices], sequence=sequence)
    config = dataclasses.replace(CONFIG, scan=scan, sequence=sequence)
    program = make_program(config, mesh, TOKENIZER)
    return [train(program, mesh) for _ in range(2)]


@pytest.mark.parametrize(
    "path", [(), pytest.param(("pallas_triton",), marks=pytest.mark.slow), ("chunked", 4, 2)]
)
def test_fifty_steps_are_the_same_to_the_bit(path):
    one, other = trained(*path)
    assert one == other
    losses, digests = one
    assert len(set(losses)) == CONFIG.steps and len(set(digests.values())) == 2
    assert np.isfinite(losses).all()


def test_losses_are_those_recorded():
    losses, _ = trained()[0]
    np.testing.assert_allclose(losses[: len(LOSSES)], LOSSES, rtol=LOSS)


@pytest.mark.optimised
def test_parameters_are_those_recorded_on_this_processor():
    expected = DIGESTS.get(version(), {})
    if processor() not in expected:
        pytest.skip(f"nothing is recorded for JAX {version()} on {processor()}")
    _, digests = trained()[0]
    assert digests[len(LOSSES)] == expected[processor()]


def processor():
    """Its name, and what says which instructions it has: one name is given to many."""
    file = pathlib.Path("/proc/cpuinfo")
    lines = [line.split(":") for line in file.read_text().splitlines()] if file.is_file() else []
    about = {words[0].strip(): words[-1].strip() for words in lines}
    flags = " ".join(sorted(about.get("flags", about.get("Features", "")).split()))
    return f"{about.get('model name', '')} {hashlib.sha256(flags.encode()).hexdigest()[:8]}"


def version():
    return ".".join(jax.__version__.split(".")[:2])


if __name__ == "__main__":
    losses, digests = trained()[0]
    print(f"losses: {losses[: len(LOSSES)]}")
    print(f"JAX {version()}, {processor()}: {digests[len(LOSSES)]}")
