"""Searches, guided by coverage, for bytes that make a reader do other than it should.

    pip install atheris && python -m tests.stress.fuzz_readers vcf --seconds 120

Inputs that reach new code are mutated further; one that fails is written to crash-* in the working
directory, and its traceback printed. `readers.py` says what must hold.
"""

import argparse
import gzip
import pathlib
import sys
import tempfile

import atheris

with atheris.instrument_imports(include=["caduceus_jax.genomics", "pyfaidx"]):
    from tests.stress.readers import CHECKS, SEEDS


def main() -> None:
    """Runs one reader for some time."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("reader", choices=CHECKS)
    parser.add_argument("--seconds", type=int, default=120)
    arguments = parser.parse_args()
    check = CHECKS[arguments.reader]
    with tempfile.TemporaryDirectory() as name:
        folder, corpus = pathlib.Path(name), pathlib.Path(name) / "corpus"
        corpus.mkdir()
        (corpus / "plain").write_bytes(SEEDS[arguments.reader])
        (corpus / "gzip").write_bytes(gzip.compress(SEEDS[arguments.reader]))
        options = [f"-max_total_time={arguments.seconds}", "-timeout=10", "-print_final_stats=1"]
        # The fuzzer ends the process, so the folder is left for the system to clear.
        atheris.Setup([sys.argv[0], *options, str(corpus)], lambda data: check(data, folder))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
