"""Names of contigs: what one assembly calls 1 is chr1 in another."""

from collections.abc import Mapping

_PREFIXES = ("", "chr", "Chr")
_MITOCHONDRION = ("M", "MT", "Mt", "mt")


def find_contig(name: str, known: Mapping[str, int], declared: int | None = None) -> str | None:
    """Finds out which contig of a genome a name stands for.

    A name that the genome has stands for itself. Otherwise it stands for the contig whose name
    differs by the prefix chr alone, and a name of the mitochondrion for the mitochondrion. Where
    lengths are known they decide about the mitochondrion: chrM of UCSC's hg19 has 16,571 bases and
    is another sequence than MT, which has 16,569.

    Args:
        name: as a file has it.
        known: length of each contig of the genome, by name.
        declared: the length that the file's header gives the contig.

    Returns:
        The genome's name; None where it has no such contig, or several that could be meant.
    """
    bare = name[3:] if name[:3].lower() == "chr" else name
    if bare not in _MITOCHONDRION:
        same = [name, *(prefix + bare for prefix in _PREFIXES)]
        return next((other for other in same if other in known), None)
    same = [name, *(prefix + bare for prefix in _PREFIXES)]
    same = [other for other in dict.fromkeys(same) if other in known]
    all_names = [p + b for b in _MITOCHONDRION for p in _PREFIXES if p + b in known]
    if declared is not None:
        fitting = [other for other in (*same, *all_names) if known[other] == declared]
        if fitting or not same:
            return fitting[0] if fitting else None
    if same:
        return same[0]
    return all_names[0] if len(all_names) == 1 else None
