"""Where a change is on either strand, and the sequences it makes."""

import numpy as np
import pytest

from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.reference.haplotypes import widen

COMPLEMENT = str.maketrans("ACGT", "TGCA")


@pytest.mark.parametrize(
    ("start", "ref", "alt", "expected"),
    [
        (5, "A", "", (4, "AAAA", "AAA")),  # one A of GCGTAAAACATATG
        (8, "", "A", (4, "AAAA", "AAAAA")),
        (9, "AT", "", (9, "ATAT", "AT")),
        (11, "", "AT", (9, "ATAT", "ATATAT")),
        (8, "", "G", (8, "", "G")),
        (0, "GC", "", (0, "GCG", "G")),
        (14, "", "G", (13, "G", "GG")),
        (8, "C", "T", (8, "C", "T")),
        (8, "C", "TT", (8, "C", "TT")),
    ],
)
def test_what_can_be_moved_covers_its_repeat(tmp_path, start, ref, alt, expected):
    (tmp_path / "a.fa").write_text(">1\nGCGTAAAACATATG\n")
    assert widen(Genome(tmp_path / "a.fa"), 0, start, ref, alt, 20) == expected


def test_a_repeat_is_looked_at_as_far_as_is_said(tmp_path):
    (tmp_path / "a.fa").write_text(">1\n" + "A" * 50 + "\n")
    assert widen(Genome(tmp_path / "a.fa"), 0, 25, "A", "", 3) == (22, "A" * 7, "A" * 6)


def test_all_ways_to_write_a_change_are_one(tmp_path):
    """Every single deletion and insertion of every haplotype of a sequence of two letters."""
    rng = np.random.default_rng(1)
    sequence = "".join(rng.choice(list("AC"), 60))
    (tmp_path / "a.fa").write_text(f">1\n{sequence}\n")
    (tmp_path / "b.fa").write_text(f">1\n{sequence.translate(COMPLEMENT)[::-1]}\n")
    genome, reverse = Genome(tmp_path / "a.fa"), Genome(tmp_path / "b.fa")
    places: dict[str, set] = {}
    for first in range(20, 40):
        for length in (1, 2, 3):
            ref = sequence[first : first + length]
            for old, new in ((ref, ""), ("", ref)):
                haplotype = sequence[:first] + new + sequence[first + len(old) :]
                start, *alleles = widen(genome, 0, first, old, new, 60)
                mirrored = widen(
                    reverse,
                    0,
                    60 - first - len(old),
                    *(allele.translate(COMPLEMENT)[::-1] for allele in (old, new)),
                    60,
                )
                back = (
                    60 - mirrored[0] - len(mirrored[1]),
                    *(allele.translate(COMPLEMENT)[::-1] for allele in mirrored[1:]),
                )
                assert back == (start, *alleles)
                assert sequence[start : start + len(alleles[0])] == alleles[0]
                changed = sequence[:start] + alleles[1] + sequence[start + len(alleles[0]) :]
                assert changed == haplotype
                places.setdefault(haplotype, set()).add(back)
    assert {len(written) for written in places.values()} == {1}
    assert len(places) < 120  # several ways to write one were among them
