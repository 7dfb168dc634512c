"""Indexes of .vcf.gz files: .tbi, and .csi where positions are beyond what a .tbi holds."""

import os
import pathlib
import tempfile

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.vcf import Vcf

_TABIX_LARGEST = 2**29  # bases of a contig that a .tbi can index
_CSI_MIN_SHIFT = 14
_ENDINGS = (".tbi", ".csi")


def index_vcf(path: pathlib.Path) -> pathlib.Path:
    """Writes the index of a .vcf.gz file beside it; needs pysam.

    Returns:
        The index: .tbi, or .csi for contigs of more than 2^29 bases.

    Raises:
        UserError: the records are not sorted, or the index cannot be written.
    """
    import pysam

    after = "the VCF is written, its index is not"
    ending = ".csi" if _check_sorted(path, after) >= _TABIX_LARGEST else ".tbi"
    index = path.with_name(f"{path.name}{ending}")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".index-") as folder:
        made = pathlib.Path(folder) / index.name
        how = {"csi": True, "min_shift": _CSI_MIN_SHIFT} if ending == ".csi" else {}
        try:
            pysam.tabix_index(str(path), preset="vcf", index=str(made), force=True, **how)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be indexed: {error} ({after})") from None
        remove_indexes(path)
        os.replace(made, index)
    return index


def remove_indexes(path: pathlib.Path) -> None:
    """Removes the indexes beside a file, which are of an earlier file of that name.

    Where the file is a symbolic link, those beside the file that it points to are removed, too.
    """
    for file in (path, path.resolve()):
        for ending in _ENDINGS:
            file.with_name(f"{file.name}{ending}").unlink(missing_ok=True)


def _check_sorted(path: pathlib.Path, after: str) -> int:
    """Returns the largest position, from 1, of records that are in order."""
    finished: set[bytes] = set()
    contig, position, largest = b"", -1, 0
    with Vcf(path).records() as records:
        for number, line in records:
            name, there, _, ref, _ = line.split(b"\t", 4)
            if name != contig:
                finished.add(contig)
                contig, position = name, -1
            if name in finished or int(there) < position:
                shown = name.decode(errors="replace")
                raise UserError(
                    f"{path}:{number}: {shown}:{int(there)} is out of order, and an index needs "
                    f"sorted records: sort the input, for example with bcftools sort ({after})"
                )
            position = int(there)
            largest = max(largest, position + len(ref))
    return largest
