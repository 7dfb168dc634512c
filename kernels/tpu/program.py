"""Building blocks of the TPU kernels: where their arrays lie, and elementary functions.

A vector register is 8 sublanes x 128 lanes. Channels lie along lanes and states along sublanes,
so that a state of 16 x 128 channels is two registers; the time step of a token is one row of
channels, loaded into all sublanes at once; its B and C are a column of states, spread over the
lanes once for all channels of a block.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from caduceus_jax.kernels.meshes import shape_like
from caduceus_jax.kernels.scan_inputs import ScanInputs
from caduceus_jax.kernels.tpu.plan import LANES, SUBLANES, Plan

LOG2_E = math.log2(math.e)
# Tokens unrolled in a round of the loops over tokens: a register's rows of a (tokens, channels).
ROUND = SUBLANES
_ROUNDS = LANES // ROUND  # of a tile of 128 tokens
_PARTS = 3  # bfloat16 numbers of which a float32 is the sum
# More than the default of 16 MiB: the states of a chunk of 256 tokens x 512 channels x 16 are 8.
VMEM_BYTES = 64 * 2**20
# Since jax 0.12 it is the TPU's.
_reciprocal = getattr(pltpu, "reciprocal", None) or pl.reciprocal


class KernelCall:
    """Runs a kernel on every (sequence, block of channels, chunk), chunks in walking order."""

    def __init__(self, plan: Plan, inputs: ScanInputs, *, backwards: bool, **extra: jax.Array):
        self.plan, self.inputs = plan, inputs
        self.batch, self.length, self.channels = inputs.u.shape
        self.state = inputs.a.shape[1]
        self.chunks = -(-self.length // plan.chunk)
        self.blocks = self.channels // plan.block
        self.descending = plan.reverse != backwards
        # Decays are powers of two. B and C have a row for each round of tokens.
        arrays = inputs._asdict() | {"a": inputs.a * LOG2_E} | extra
        for name in ("b", "c"):
            whole = ((0, 0), (0, self.chunks * plan.chunk - self.length), (0, 0))
            x = jnp.pad(getattr(inputs, name), whole)
            arrays[name] = x.reshape(self.batch, -1, ROUND * self.state)
        if inputs.restart is not None:
            arrays["keeps"] = self._keeps()
        self.arrays = {name: x for name, x in arrays.items() if x is not None}

    def _keeps(self) -> jax.Array:
        """Returns 0 where the state is forgotten and 1 elsewhere, (batch, chunks, 1, chunk)."""
        more = self.chunks * self.plan.chunk - self.length
        keeps = jnp.where(self.inputs.restarts, 0.0, 1.0).astype(jnp.float32)
        whole = jnp.pad(keeps, ((0, 0), (0, more)), constant_values=1.0)
        return whole.reshape(self.batch, self.chunks, 1, self.plan.chunk)

    def __call__(
        self,
        kernel: Callable[[Plan, dict[str, Any]], None],
        reads: tuple[str, ...],
        writes: tuple[str, ...],
        scratch: dict[str, Any],
    ) -> dict[str, jax.Array]:
        """Runs one kernel.

        Args:
            kernel: called with the plan and the arrays by name.
            reads: names of what it reads; those that this scan does not have are left out.
            writes: names of what it writes.
            scratch: arrays that each program has to itself, by name.

        Returns:
            The arrays written, by name.
        """
        reads = tuple(name for name in reads if name in self.arrays)
        names = (*reads, *writes, *scratch)

        def body(*refs) -> None:
            """Gives the kernel its references by name."""
            kernel(self.plan, dict(zip(names, refs, strict=True)))

        call = pl.pallas_call(
            body,
            grid=(self.batch, self.blocks, self.chunks),
            in_specs=[self._layout(name)[1] for name in reads],
            out_specs=[self._layout(name)[1] for name in writes],
            out_shape=[self._layout(name)[0] for name in writes],
            scratch_shapes=list(scratch.values()),
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("parallel", "parallel", "arbitrary"),
                vmem_limit_bytes=VMEM_BYTES,
            ),
            interpret=self.plan.interpret,
            name=f"selective_scan{kernel.__name__}",
        )
        # A TPU's indices have 32 bits, whatever the program around the kernel computes with.
        with jax.enable_x64(False):
            written = call(*(self.arrays[name] for name in reads))
        return dict(zip(writes, written, strict=True))

    def _layout(self, name: str) -> tuple[jax.ShapeDtypeStruct, pl.BlockSpec]:
        """Returns an array's shape, and the part of it that belongs to program (row, block, k)."""
        chunk, block, state, groups = (
            self.plan.chunk,
            self.plan.block,
            self.state,
            self.inputs.groups,
        )

        def at(k):
            return self.chunks - 1 - k if self.descending else k

        layouts: dict[tuple[str, ...], tuple[tuple[int, ...], pl.BlockSpec]] = {
            ("u", "delta", "z", "y", "grad_y", "grad_u", "grad_delta", "grad_z"): (
                (self.batch, self.length, self.channels),
                pl.BlockSpec((None, chunk, block), lambda r, i, k: (r, at(k), i)),
            ),
            ("b", "c"): (
                (self.batch, self.chunks * chunk // ROUND, ROUND * state),
                pl.BlockSpec((None, chunk // ROUND, ROUND * state), lambda r, i, k: (r, at(k), 0)),
            ),
            ("keeps",): (
                (self.batch, self.chunks, 1, chunk),
                pl.BlockSpec(
                    (None, None, 1, chunk),
                    lambda r, i, k: (r, at(k), 0, 0),
                    memory_space=pltpu.SMEM,
                ),
            ),
            ("grad_b", "grad_c"): (
                (self.blocks, self.batch, state, self.length),
                pl.BlockSpec((None, None, state, chunk), lambda r, i, k: (i, r, 0, at(k))),
            ),
            ("a",): (
                (groups, state, self.channels),
                pl.BlockSpec((None, state, block), lambda r, i, k: (r % groups, 0, i)),
            ),
            ("d_skip", "delta_bias"): (
                (groups, 1, self.channels),
                pl.BlockSpec((None, 1, block), lambda r, i, k: (r % groups, 0, i)),
            ),
            ("initial_state", "final_state", "grad_final", "grad_initial_state", "grad_a"): (
                (self.batch, state, self.channels),
                pl.BlockSpec((None, state, block), lambda r, i, k: (r, 0, i)),
            ),
            ("grad_d_skip", "grad_delta_bias"): (
                (self.batch, SUBLANES, self.channels),
                pl.BlockSpec((None, SUBLANES, block), lambda r, i, k: (r, 0, i)),
            ),
            ("initial_states",): (
                (self.batch, self.chunks, state, self.channels),
                pl.BlockSpec((None, None, state, block), lambda r, i, k: (r, at(k), 0, i)),
            ),
        }
        shape, spec = next(found for names, found in layouts.items() if name in names)
        like = {"y": "u", "grad_u": "u", "grad_delta": "delta", "grad_z": "z"}
        dtype = self.arrays[like[name]].dtype if name in like else jnp.float32
        return shape_like(shape, dtype, self.inputs.u), spec


def sigmoid(x: jax.Array, interpret: Any) -> jax.Array:
    """Returns 1 / (1 + e^-x); the exponential stays finite, because infinity x 0 is NaN."""
    x = 1 + jnp.exp2(jnp.minimum(x * -LOG2_E, 126.0))
    if interpret:
        return 1 / x
    # The hardware's estimate and one step of Newton's, without the fix-ups of a division.
    estimate = _reciprocal(x, approx=True)
    return estimate * (2 - x * estimate)


def softplus(x: jax.Array) -> jax.Array:
    """Returns log(1 + e^x), accurate in float32 where it is small too."""
    e = jnp.exp2(jnp.minimum(x, 21.0) * LOG2_E)
    # The logarithm of 1 + e has an absolute error: below 1/16 its series is better.
    series = jnp.full_like(e, 1 / 5)
    for coefficient in (-1 / 4, 1 / 3, -1 / 2, 1.0):
        series = series * e + coefficient
    return jnp.where(x > 20, x, jnp.where(e < 1 / 16, series * e, jnp.log(1 + e)))


class Round(NamedTuple):
    """A round of tokens of a chunk.

    What neighbouring rounds keep lies in different arrays, their slots: so the compiler knows
    that one does not read what the other writes, and lets them overlap.
    """

    number: Any  # in the chunk
    slot: int
    place: Any  # in the slot


def slots(plan: Plan) -> int:
    """Counts the slots of neighbouring rounds; one where XLA compiles, which unrolls slowly."""
    return 1 if plan.interpret is True else 2


class TokenLoop:
    """Walks a program over its chunk, a round of tokens at a time."""

    def __init__(self, plan: Plan, refs: dict[str, Any], *, backwards: bool):
        self.plan, self.refs = plan, refs
        self.first: jax.Array | None = None  # token of the sequence; None where all exist
        if plan.length % plan.chunk:
            k, chunks = pl.program_id(2), -(-plan.length // plan.chunk)
            self.first = (chunks - 1 - k if plan.reverse != backwards else k) * plan.chunk

    def rounds(self, body: Callable, carry=None, *, backwards: bool = False) -> Any:
        """Runs `body(round, carry)` on every round of tokens in walking order."""
        each = slots(self.plan)
        count = self.plan.chunk // ROUND // each
        step = -1 if self.plan.reverse != backwards else 1

        def visit(k, carry) -> Any:
            """Runs the rounds of one turn of the loop."""
            place = count - 1 - k if step < 0 else k
            for slot in range(each)[::step]:
                carry = body(Round(place * each + slot, slot, place), carry)
            return carry

        return lax.fori_loop(0, count, visit, carry)

    def following(self, i: Round) -> Round:
        """Returns the round after i in walking order, or an earlier one where there is none."""
        each = slots(self.plan)
        last = self.plan.chunk // ROUND // each - 1
        if self.plan.reverse:
            slot = (i.slot - 1) % each
            place = i.place if slot < i.slot else jnp.maximum(i.place - 1, 0)
        else:
            slot = (i.slot + 1) % each
            place = i.place if slot > i.slot else jnp.minimum(i.place + 1, last)
        return Round(place * each + slot, slot, place)

    def tokens(self, body: Callable, carry: Any = None, *, backwards: bool = False) -> Any:
        """Runs `body(token of the round, carry)` in walking order, unrolled."""
        descending = self.plan.reverse != backwards
        if self.plan.interpret is True:
            visit = lambda k, carry: body(ROUND - 1 - k if descending else k, carry)  # noqa: E731
            return lax.fori_loop(0, ROUND, visit, carry)
        for j in range(ROUND)[:: -1 if descending else 1]:
            carry = body(j, carry)
        return carry

    def keep(self, name: str, i: Round, value: jax.Array) -> None:
        """Keeps an array of round i in fast memory."""
        self.refs[f"{name}{i.slot}"][i.place] = value

    def kept(self, name: str, i: Round) -> jax.Array:
        """Returns what `keep` kept."""
        return self.refs[f"{name}{i.slot}"][i.place]

    def real(self, token, shape: tuple[int, ...], axis: int) -> jax.Array | None:
        """Tells which of the tokens from `token` on, along `axis`, exist; None where all do."""
        if self.first is None:
            return None
        return lax.broadcasted_iota(jnp.int32, shape, axis) < self.plan.length - self.first - token

    def load(self, name: str, i: Round) -> jax.Array:
        """Loads (ROUND, channels) float32 of round i; 0 past the last token."""
        x = self.refs[name][pl.ds(pl.multiple_of(i.number * ROUND, ROUND), ROUND), :]
        return self.mask(i, x.astype(jnp.float32))

    def mask(self, i: Round, x: jax.Array) -> jax.Array:
        """Masks (ROUND, channels) of round i with 0 past the last token."""
        real = self.real(i.number * ROUND, x.shape, 0)
        return x if real is None else jnp.where(real, x, 0.0)

    def store(self, name: str, i: Round, value: jax.Array) -> None:
        """Writes (ROUND, channels) of round i."""
        ref = self.refs[name]
        ref[pl.ds(pl.multiple_of(i.number * ROUND, ROUND), ROUND), :] = value.astype(ref.dtype)

    def spread(self) -> None:
        """Lays B and C out to be multiplied: tokens and states along sublanes, rounds along lanes.

        Each number as three of bfloat16, whose sum it is exactly.
        """
        for name in ("b", "c"):
            x, ref = self.refs[name], self.refs[f"{name}_spread"]
            for tile in range(ref.shape[0]):
                parts = [x[pl.ds(tile * _ROUNDS, _ROUNDS), :].astype(jnp.float32)]
                for _ in range(_PARTS - 1):
                    high = _truncated(parts[-1])
                    parts[-1:] = [high, parts[-1] - high]
                zeros = jnp.zeros((LANES - _PARTS * _ROUNDS, x.shape[1]), jnp.float32)
                ref[tile] = jnp.concatenate([*parts, zeros]).T.astype(jnp.bfloat16)

    def columns(self, name: str, i: Round) -> jax.Array:
        """Returns B or C of round i along sublanes, (ROUND x state, 128), alike in every lane."""
        row = lax.broadcasted_iota(jnp.int32, (LANES, LANES), 0)
        ours = ((row & (_ROUNDS - 1)) == (i.number & (_ROUNDS - 1))) & (row < _PARTS * _ROUNDS)
        return jnp.dot(
            self.refs[f"{name}_spread"][lax.div(i.number, jnp.int32(_ROUNDS))],
            jnp.where(ours, 1.0, 0.0).astype(jnp.bfloat16),
            preferred_element_type=jnp.float32,
        )

    def store_columns(self, name: str, i: Round, value: jax.Array) -> None:
        """Writes (state, 128): the 128 tokens among which round i is."""
        tile = pl.multiple_of((i.number * ROUND) & -LANES, LANES)
        self.refs[name][:, pl.ds(tile, LANES)] = value

    def row(self, name: str, i: Round, j) -> jax.Array:
        """Returns token j of round i of what `prepare` kept, (1, channels)."""
        return self.refs[f"{name}{i.slot}"][i.place, pl.ds(j, 1), :]

    def column(self, name: str, i: Round, j) -> jax.Array:
        """Returns B or C of token j of round i, as `prepare` kept it, (state, channels)."""
        ref = self.refs[f"{name}_columns{i.slot}"]
        state = ref.shape[1] // ROUND
        x = ref[i.place, pl.ds(j * state, state), :]
        return jnp.concatenate([x] * (self.plan.block // LANES), axis=1)

    def before_softplus(self, i: Round) -> jax.Array:
        """Returns the input of softplus, (ROUND, channels)."""
        before = self.load("delta", i)
        return before + self.refs["delta_bias"][...] if "delta_bias" in self.refs else before

    def steps(self, i: Round) -> jax.Array:
        """Returns the time steps, (ROUND, channels); 0 past the last token: decay 1, input 0."""
        before = self.before_softplus(i)
        return self.mask(i, softplus(before) if self.plan.delta_softplus else before)

    def prepare(self, i: Round) -> None:
        """Keeps of round i what the loop over tokens reads one token at a time."""
        delta = self.steps(i)
        self.keep("steps", i, delta)
        self.keep("drives", i, delta * self.load("u", i))
        for name in ("b", "c"):
            self.keep(f"{name}_columns", i, self.columns(name, i))

    def prepared_rounds(self, body: Callable, carry) -> Any:
        """Runs `rounds`, each prepared beside the one before it, which hides its latency."""
        self.spread()
        each = slots(self.plan)
        last = self.plan.chunk // ROUND - 1
        self.prepare(Round(last, each - 1, last // each) if self.plan.reverse else Round(0, 0, 0))

        def visit(i, carry) -> Any:
            """Prepares the round that follows, and runs this one."""
            if each > 1:
                self.prepare(self.following(i))
                return body(i, carry)
            carry = body(i, carry)
            self.prepare(self.following(i))
            return carry

        return self.rounds(visit, carry)

    def advance(self, i: Round, j, h: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the state after token j of round i, and its decay."""
        decay = self.restarted(i, j, jnp.exp2(self.row("steps", i, j) * self.refs["a"][...]))
        drive = self.column("b", i, j) * self.row("drives", i, j)
        return decay * h + drive, decay

    def restarted(self, i: Round, j, decay: jax.Array) -> jax.Array:
        """Returns the decay at token j of round i, 0 where the state before it is forgotten."""
        if "keeps" not in self.refs:
            return decay
        return decay * self.refs["keeps"][0, i.number * ROUND + j]


def prepared(plan: Plan, state: int) -> dict[str, Any]:
    """Returns the memory that `TokenLoop.prepare` needs and keeps."""
    spread = pltpu.VMEM((plan.chunk // LANES, ROUND * state, LANES), jnp.bfloat16)
    return {"b_spread": spread, "c_spread": spread} | memory_per_round(
        plan,
        steps=(ROUND, plan.block),
        drives=(ROUND, plan.block),
        b_columns=(ROUND * state, LANES),
        c_columns=(ROUND * state, LANES),
    )


def memory_per_round(plan: Plan, **shapes: tuple[int, int]) -> dict[str, Any]:
    """Returns the fast memory that `TokenLoop.keep` needs per round, by name."""
    places = plan.chunk // ROUND // slots(plan)
    return {
        f"{name}{slot}": pltpu.VMEM((places, *shape), jnp.float32)
        for name, shape in shapes.items()
        for slot in range(slots(plan))
    }


def _truncated(x: jax.Array) -> jax.Array:
    """Clears the lower half of float32, which leaves a bfloat16."""
    bits = lax.bitcast_convert_type(x, jnp.int32) & -(1 << 16)
    return lax.bitcast_convert_type(bits, jnp.float32)
