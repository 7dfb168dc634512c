"""Signals along a genome, from bigWig files: each window's mean in every bin."""

import logging

import numpy as np

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.bed import read_bed
from caduceus_jax.genomics.files.bigwig import BigWig
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.train.data.config import as_list
from caduceus_jax.train.finetuning.config import LabelledConfig
from caduceus_jax.train.finetuning.examples import Examples, Task
from caduceus_jax.train.split_names import split_of

log = logging.getLogger(__name__)

# Of a stretch that no split is named for: training at the start, then validation, then test.
_VALIDATION_FROM, _TEST_FROM = 0.8, 0.9
_MOST_N = 0.5  # share of a window; from there on it is left out


def read_task(config: LabelledConfig) -> Task:
    """Reads the windows of `config.tracks`, split by place.

    Values are log(1 + mean of a bin): coverage spans orders of magnitude.

    Raises:
        UserError: files that are missing or belong to different assemblies, regions without
            windows, or a split without any.
    """
    given = config.tracks
    if not given.bigwig or not given.genome:
        raise UserError("the task tracks needs --data.tracks.bigwig and --data.tracks.genome")
    files = [BigWig(path) for path in as_list(given.bigwig)]
    genome = Genome(given.genome)
    parts: dict[str, list[tuple[str, int]]] = {"train": [], "validation": [], "test": []}
    for part, contig, start, end in _stretches(config, genome, files[0]):
        for first in range(start, end - given.length + 1, given.stride or given.length):
            parts[part].append((contig, first))
    examples = {part: _examples(places, config, genome, files) for part, places in parts.items()}
    for part, found in examples.items():
        if not found.sequences:
            raise UserError(
                f"no window of {given.length:,} bases for {part}: shorten data.tracks.length, or "
                "name regions with splits in data.tracks.regions"
            )
    for file in files:
        if file.missing:
            log.info(f"{file.path}: {file.missing:,} bases without a value are read as 0")
    return Task(
        "tracks",
        "tracks",
        tuple(file.path.name for file in files),
        "pearson",
        given.length,
        examples["train"],
        examples["validation"],
        examples["test"],
        given.bin_size,
    )


def _stretches(
    config: LabelledConfig, genome: Genome, file: BigWig
) -> list[tuple[str, str, int, int]]:
    """Returns (split, contig, start, end), 0-based half-open, of everything that is read."""
    given = config.tracks
    if given.regions:
        regions = read_bed(given.regions)
        named = [split_of(name) for name in regions.name]
        places = list(zip(regions.chrom, regions.start.tolist(), regions.end.tolist(), strict=True))
    else:
        named = [None] * len(genome.names)
        sizes = genome.lengths.tolist()
        places = [(name, 0, size) for name, size in zip(genome.names, sizes, strict=True)]
        places = [place for place in places if place[0] in file.lengths]
        named = named[: len(places)]
    if not places:
        raise UserError(f"{file.path} has no contig of {genome.path}: are they of one assembly?")
    found = []
    for split, (contig, start, end) in zip(named, places, strict=True):
        if split is not None:
            found.append((split, contig, start, end))
            continue
        cuts = [start + round(share * (end - start)) for share in (_VALIDATION_FROM, _TEST_FROM)]
        ends = (start, *cuts, end)
        found += [
            (part, contig, ends[i], ends[i + 1])
            for i, part in enumerate(("train", "validation", "test"))
        ]
    return found


def _examples(
    places: list[tuple[str, int]], config: LabelledConfig, genome: Genome, files: list[BigWig]
) -> Examples:
    given = config.tracks
    labels, sequences, kept = [], [], []
    numbers = genome.contigs([contig for contig, _ in places])
    for (contig, start), number in zip(places, numbers.tolist(), strict=True):
        end = start + given.length
        if number < 0:
            raise UserError(f"{genome.path} has no contig {contig} of the regions")
        bases = genome.bases(number, start, end)
        if (bases == ord("N")).mean() > _MOST_N:
            continue
        tracks = [file.bins(contig, start, end, given.bin_size) for file in files]
        labels.append(np.log1p(np.maximum(np.stack(tracks, axis=1), 0)))
        sequences.append(bases.tobytes())
        kept.append(f"{contig}:{start}-{end}")
    shape = (0, given.length // given.bin_size, len(files))
    return Examples(kept, sequences, np.stack(labels) if labels else np.empty(shape, np.float32))
