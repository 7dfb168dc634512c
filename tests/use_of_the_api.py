"""A program that uses the public names: type checkers read it, nothing runs it.

`.ci/run` checks it with pyright and mypy against the wheel and against an editable install, in
environments without the dependencies, so it asserts the types that are this project's own.
"""

import pathlib
from typing import Literal, assert_type

import caduceus_jax as cj
from caduceus_jax.configs import resolve
from caduceus_jax.kernels import selective_scan
from caduceus_jax.train.config import PretrainConfig

config = cj.CaduceusConfig(d_model=8, n_layer=1, rcps=True)
assert_type(config, cj.CaduceusConfig)
assert_type(config.d_model, int)
assert_type(config.bidirectional_strategy, Literal["add", "ew_multiply"])
assert_type(cj.Tokenizer().decode([7, 8]), str)
assert_type(cj.Interval.from_str("chr1:101-200"), cj.Interval)
assert_type(cj.Variant.from_str("chr1:123:A>G"), cj.Variant)
assert_type(PretrainConfig().steps, int)
assert_type(resolve("quickstart"), pathlib.Path)
assert callable(selective_scan)
