"""Small genomes on disk."""

import pathlib

from caduceus_jax.genomics.reference.store import Store
from caduceus_jax.train.data.prepare import write_store


def fasta(path: pathlib.Path, **records: str) -> pathlib.Path:
    """Writes a FASTA file of these records, each on one line."""
    path.write_text("".join(f">{contig}\n{text}\n" for contig, text in records.items()))
    return path


def prepared(folder: pathlib.Path, **records: str) -> Store:
    """A store of these records, in a folder of its own within `folder`."""
    name = f"genome{len(list(folder.iterdir()))}"
    return write_store(fasta(folder / f"{name}.fa", **records), folder / name)
