"""`caduceus-jax merge`: the shards of a command into its outputs."""

import dataclasses
import importlib
import inspect
import logging
import pathlib
from typing import get_type_hints

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.scoring.shards import joined, write_joined

log = logging.getLogger(__name__)

_VERBS = ("attribute", "embed", "likelihood", "mutagenesis", "predict", "score-variants")


def merge(
    shards: list[pathlib.Path],
    *,
    out: list[pathlib.Path] | None = None,
) -> None:
    """Joins the shards that --shard of a command wrote into the outputs of that command.

    The outputs are, byte for byte, those of the same command without --shard. Inputs and model are
    read once more; nothing is computed. Run it in the folder where the shards were computed, on a
    machine of the same kind. The shards stay: remove them afterwards.

    examples:
      for i in 1 2 3 4; do
          caduceus-jax score-variants runs/quickstart calls.vcf.gz --genome hg38.fa \\
              --out scored.vcf.gz --shard $i/4
      done
      caduceus-jax merge scored.vcf.gz.shard-*-of-4

    Args:
        shards: the files OUT.shard-1-of-N to OUT.shard-N-of-N.
        out: files to write in place of those that the command named.

    Raises:
        UserError: a file is not a shard, one is missing, or they are not of one run.
    """
    run, command = joined(shards)
    verb, given = command["verb"], dict(command["arguments"])
    if verb not in _VERBS:
        raise UserError(f"{shards[0]} is a shard of {verb}, which this version does not know")
    name = verb.replace("-", "_")
    module = importlib.import_module(f"caduceus_jax.cli.genomics.{name}")
    function = getattr(module, name)
    hints, parameters = get_type_hints(function), inspect.signature(function).parameters
    several = hints["out"] != pathlib.Path
    named = out or ([*given["out"]] if several else [given["out"]])
    if not several and len(named) != 1:
        raise UserError(f"{verb} writes one file: name one with out")
    paths = [pathlib.Path(path) for path in named]
    given["out"] = paths if several else paths[0]
    for name, parameter in parameters.items():
        if dataclasses.is_dataclass(parameter.default):
            given[name] = type(parameter.default)(**given[name])
        elif hints[name] == pathlib.Path | None and given[name] is not None:
            given[name] = pathlib.Path(given[name])
    given["restart"] = False
    write_joined(shards, run, paths[0].with_name(f"{paths[0].name}.journal"))
    log.info(f"joining {len(shards):,} shards of {verb}")
    function(**given)
