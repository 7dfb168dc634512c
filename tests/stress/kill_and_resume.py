"""Kills a genomics command at random moments, continues it, and compares the bytes.

    python tests/stress/kill_and_resume.py 20 score-variants MODEL VARIANTS --genome GENOME \
        --out scored.vcf [OPTIONS]

The words after the number of kills are those of the command. It prints one line per kill, in the
end one that tells whether the result is that of a run that nobody killed; exit status 1 if not.
"""

import hashlib
import os
import pathlib
import random
import subprocess
import sys
import time


def main(kills: int, words: list[str], seed: int = 0) -> bool:
    """Runs once undisturbed, then with kills; whether both outputs have the same bytes."""
    at = words.index("--out") + 1
    out = pathlib.Path(words[at])
    whole = out.with_name(f"whole.{out.name}")
    journal = out.with_name(f"{out.name}.journal")
    command = [sys.executable, "-m", "caduceus_jax"]
    subprocess.run([*command, *words[:at], str(whole), *words[at + 1 :]], check=True)
    generator = random.Random(seed)
    for kill in range(1, kills + 1):
        before = journal.stat().st_size if journal.exists() else 0
        process = subprocess.Popen([*command, *words], stderr=subprocess.DEVNULL)
        # Killed once it has computed something more, at a moment that nobody chose.
        while process.poll() is None and not _grown(journal, before):
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 1.0))
        process.kill()
        status = process.wait()
        size = journal.stat().st_size if journal.exists() else 0
        print(f"kill {kill}: status {status}, journal {size:,} bytes, output {out.exists()}")
        if status == 0:
            break
    subprocess.run([*command, *words], check=True)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (whole, out)]
    same = digests[0] == digests[1] and not journal.exists()
    print(f"{'the same bytes' if same else 'DIFFERENT'}: {digests[0][:16]} {digests[1][:16]}")
    return same


def _grown(journal: pathlib.Path, before: int) -> bool:
    return journal.exists() and os.path.getsize(journal) > max(before, 1_000)


if __name__ == "__main__":
    sys.exit(not main(int(sys.argv[1]), sys.argv[2:]))
