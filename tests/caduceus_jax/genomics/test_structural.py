"""What symbolic ALTs stand for."""

import pytest

from caduceus_jax.genomics.files.alleles import Change, change
from caduceus_jax.genomics.status import Status
from caduceus_jax.genomics.structural import Event, change_of, read_events

DEL, DUP, INV = (Event(kind, 5) for kind in ("DEL", "DUP", "INV"))
INS = Event("INS", 4, "ACGT")
POS = 10


@pytest.mark.parametrize(
    ("alt", "info", "expected"),
    [
        ("<DEL>", "END=15", DEL),
        ("<DEL>", "SVLEN=-5", DEL),
        ("<DEL>", "SVLEN=5", DEL),  # VCF 4.4
        ("<DEL>", "DB;SVTYPE=DEL;END=15;SVLEN=-5;IMPRECISE", DEL),
        ("<DEL>", "END=15;SVLEN=.", DEL),
        ("<DEL>", "END=15;SEQ=TTTTT", DEL),
        ("<DEL:ME:ALU>", "END=15", DEL),
        ("<DUP>", "END=15", DUP),
        ("<DUP:TANDEM>", "SVLEN=5", DUP),
        ("<INV>", "END=15", INV),
        ("<INV>", "END=15;SVLEN=0", INV),
        ("<INV>", "SVLEN=5", INV),
        ("<INS>", "SEQ=acgt", INS),
        ("<INS>", "SVINSSEQ=ACGT;SVLEN=4;END=10", INS),
        ("<INS:ME>", "SEQ=ACGT;SVINSSEQ=ACGT", INS),
    ],
)
def test_events(alt, info, expected):
    assert read_events([alt], info, POS) == [expected]


@pytest.mark.parametrize(
    ("alt", "info"),
    [
        *[(alt, ".") for alt in ("<DEL>", "<DUP>", "<INV>", "<INS>")],
        *[("<DEL>", f"END={end}") for end in ("", ".", "9", "10", "x", "-1", "15,16", "1e9", "²")],
        *[("<DEL>", f"SVLEN={length}") for length in ("", ".", "0", "-", "5.0", "-5,-5", "NA")],
        ("<DEL>", "END=15;SVLEN=-6"),
        ("<DEL>", "END=15;END=16"),
        ("<DEL>", "END=15;SVLEN=x"),
        ("<DEL>", "END=9;SVLEN=-5"),
        ("<DEL>", "END"),
        ("<DEL>", "CIEND=15;end=15"),
        ("<DEL>", "END=15;SVINSSEQ=ACG"),
        ("<DEL>", "END=" + "9" * 5000),
        ("<DUP>", "SVLEN=-5"),
        ("<INV>", "SVLEN=0"),
        ("<DUP:DISPERSED>", "END=15"),
        ("<del>", "END=15"),
        ("<DEL", "END=15"),
        ("<DEL>A", "END=15"),
        *[
            (alt, "END=15;SVLEN=5;SEQ=ACGT")
            for alt in ("<CNV>", "<NON_REF>", "<*>", "<>", "*", ".")
        ],
        *[(alt, "END=15;SVLEN=5") for alt in ("N[chr2:321[", "]chr2:<ctg>]N", "C<ctg1>", "A")],
        *[("<INS>", f"SEQ={bases}") for bases in ("", ".", "X", "ACGT,A", "<DUP>")],
        ("<INS>", "SEQ=ACGT;SVINSSEQ=ACGG"),
        ("<INS>", "SEQ=ACGT;SVLEN=5"),
        ("<INS>", "END=15;SVLEN=4"),
    ],
)
def test_no_event(alt, info):
    assert read_events([alt], info, POS) == [None]


def test_several_alts_have_lengths_of_their_own():
    alts = ["<DEL>", "A", "<DUP>", "*", "<INS>"]
    info = "END=17;SVLEN=-5,.,7,.,4;SEQ=.,.,.,.,ACGT"
    assert read_events(alts, info, POS) == [DEL, None, Event("DUP", 7), None, INS]
    assert read_events(alts[:2], "END=15", POS) == [DEL, None]
    assert read_events(alts[:2], "SVLEN=-5", POS) == [None, None]
    assert read_events(["<DEL>"] * 2, "SVLEN=-5,-4;END=15", POS) == [DEL, Event("DEL", 4)]


GENOME = "TTACGGTNCCAGCTTGAGC"


@pytest.mark.parametrize(
    ("event", "position", "ref", "alt"),
    [
        (Event("DEL", 3), 1, "TACG", "T"),
        (Event("DUP", 3), 1, "T", "TACG"),
        (Event("INV", 3), 1, "TACG", "TCGT"),
        (Event("INV", 4), 9, "CAGCT", "CAGCT"),  # its own reverse complement
        (Event("INS", 2, "gg"), 1, "T", "TGG"),
        (Event("DEL", 4), 4, "GGTNC", "G"),
        (Event("DUP", 4), 4, "G", "GGTNC"),
        (Event("INV", 4), 4, "GGTNC", "GGNAC"),
        (Event("INS", 1, "N"), 1, "T", "TN"),
        (Event("DEL", 18), 0, GENOME, "T"),
    ],
)
def test_changes_are_those_of_the_same_alleles_in_bases(event, position, ref, alt):
    read = []

    def bases(start, end):
        read.append((start, end))
        return GENOME[start:end]

    found = change_of(event, GENOME[position], position, len(GENOME), bases, 18)
    expected = change(ref, alt)
    # A doubled stretch may be written before itself or after.
    if event.kind == "DUP":
        assert (found.status, found.ref, sorted(found.alt)) == (
            expected.status,
            expected.ref,
            sorted(expected.alt),
        )
    else:
        assert found == expected
    assert all(0 <= start <= end <= len(GENOME) for start, end in read)


def test_what_is_too_long_is_not_read():
    def never(start, end):
        raise AssertionError

    def found(event, position, longest=9):
        return change_of(event, "A", position, 100, never, longest)

    assert found(Event("DEL", 10), 3) == Change(Status.TOO_LONG)
    assert found(Event("INV", 10), 89) == Change(Status.TOO_LONG)
    assert found(Event("INS", 10, "A" * 10), 99) == Change(Status.TOO_LONG)
    # Beyond the contig: of another genome, or a slip.
    assert found(Event("DEL", 10), 90) == Change(Status.SYMBOLIC)
    assert found(Event("DUP", 10**17), 3) == Change(Status.SYMBOLIC)
