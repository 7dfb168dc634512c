"""What alleles change."""

import pytest

from caduceus_jax.genomics.files.alleles import Change, Genotype, change, genotype
from caduceus_jax.genomics.status import Status


@pytest.mark.parametrize(
    ("ref", "alt", "expected"),
    [
        ("A", "C", Change(Status.OK, 0, "A", "C")),
        ("a", "t", Change(Status.OK, 0, "A", "T")),
        ("AT", "AC", Change(Status.OK, 1, "T", "C")),
        ("GATT", "CATT", Change(Status.OK, 0, "G", "C")),
        ("GATT", "CAAT", Change(Status.OK, 0, "GAT", "CAA")),
        ("A", "A", Change(Status.OK, 0, "A", "A")),
        ("GAT", "GAT", Change(Status.OK, 0, "G", "G")),
        ("N", "C", Change(Status.AMBIGUOUS, 0, "N", "C")),
        ("A", "R", Change(Status.AMBIGUOUS, 0, "A", "R")),
        ("NT", "NC", Change(Status.OK, 1, "T", "C")),
        ("AT", "GC", Change(Status.OK, 0, "AT", "GC")),
        ("AT", "A", Change(Status.OK, 1, "T", "")),
        ("A", "AT", Change(Status.OK, 1, "", "T")),
        ("AAA", "AA", Change(Status.OK, 2, "A", "")),
        ("CAC", "C", Change(Status.OK, 1, "AC", "")),
        ("GATC", "GC", Change(Status.OK, 1, "AT", "")),
        ("GATC", "GCCC", Change(Status.OK, 1, "AT", "CC")),
        ("GATC", "GTAGC", Change(Status.OK, 1, "AT", "TAG")),
        ("A", "<DEL>", Change(Status.SYMBOLIC)),
        ("A", "<*>", Change(Status.SYMBOLIC)),
        ("A", "A[chr2:5[", Change(Status.SYMBOLIC)),
        ("A", ".C", Change(Status.SYMBOLIC)),
        ("A", "*", Change(Status.SPANNING_DELETION)),
        ("A", None, Change(Status.MISSING_ALT)),
    ],
)
def test_what_an_alt_changes(ref, alt, expected):
    assert change(ref, alt) == expected


@pytest.mark.parametrize(
    ("text", "alleles", "phase_set"),
    [
        ("0|1", (0, 1), "."),
        ("2|1", (2, 1), "."),
        ("|0|1", (0, 1), "."),  # VCF 4.4
        ("1|1", (1, 1), None),
        ("1/1", (1, 1), None),
        ("0/0", (0, 0), None),
        ("1", (1,), None),
        *[(text, (), None) for text in ("0/1", ".", "./.", ".|1", "0|1|1", "", "0|", "x|y", "-1")],
    ],
)
def test_genotypes(text, alleles, phase_set):
    assert genotype({"GT": text}) == Genotype(alleles, phase_set)
    found = genotype({"GT": text, "PS": "7"})
    assert found == Genotype(alleles, "7" if phase_set else None)
    assert genotype({"PS": "7"}) == Genotype((), None)
