"""The published classification tasks, from their files as they are published.

A task's folder holds one of these, for train and test, and for validation where there is one:

- a table or FASTA file: train.csv or train.tsv (also .gz), train.parquet, train.fna with
  >name|label headers; in `data/` too, and with what Hugging Face puts after the split's name;
- a folder for each class with a text file for each sequence, as the package genomic-benchmarks
  writes it: train/positive/*.txt.
"""

import pathlib

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.fasta import StrangeByte, canonical
from caduceus_jax.train.finetuning.config import LabelledConfig
from caduceus_jax.train.finetuning.examples import Task
from caduceus_jax.train.split_names import SPLITS
from caduceus_jax.train.tasks.facts import GENOMIC_BENCHMARKS, NUCLEOTIDE_TRANSFORMER, PublishedTask
from caduceus_jax.train.tasks.tables import Rows, read_rows, task_of

SUITES: dict[str, dict[str, PublishedTask]] = {
    "genomic_benchmarks": GENOMIC_BENCHMARKS,
    "nucleotide_transformer": NUCLEOTIDE_TRANSFORMER,
}
# Where each suite is published on the Hugging Face hub: repository, and folder within it.
_PUBLISHED = {
    "genomic_benchmarks": ("katarinagresova/Genomic_Benchmarks_{name}", ""),
    "nucleotide_transformer": (
        "InstaDeepAI/nucleotide_transformer_downstream_tasks",
        "{name}",
    ),
}
_ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".fna", ".fa", ".fasta")
_SEQUENCE_COLUMNS = ("sequence", "seq")


def read_task(suite: str, name: str, config: LabelledConfig) -> Task:
    """Reads a published task.

    Args:
        suite: one of `SUITES`.
        name: the name of the task in it.
        config: the folder that holds the task's folder, and a shorter length if wished.

    Raises:
        UserError: the task does not exist, or files are missing and cannot be downloaded.
    """
    facts = published_task(suite, name)
    folder = locate(suite, name, config.folder)
    parts = {}
    for part in SPLITS:
        rows = _read_part(folder, part, facts)
        if rows is not None:
            parts[part] = rows
    for part in ("train", "test"):
        if part not in parts:
            raise UserError(
                f"{folder} has no {part} sequences: it needs {part}.csv, .tsv, .parquet or .fna, "
                f"or a folder {part}/ with one of text files for each class"
            )
    chosen = LabelledConfig(max_length=min(facts.max_length, config.max_length or 10**9))
    return task_of(name, parts, chosen, metric=facts.metric, classes=facts.classes)


def published_task(suite: str, name: str) -> PublishedTask:
    """Returns what is known of a task.

    Raises:
        UserError: the task does not exist.
    """
    if name not in SUITES[suite]:
        raise UserError(f"{suite} has no task {name}; it has {', '.join(SUITES[suite])}")
    return SUITES[suite][name]


def locate(suite: str, name: str, folder: str) -> pathlib.Path:
    """Finds the task's folder: the one in `folder`, or what the hub has of it.

    Raises:
        UserError: the task is neither in the folder nor on the hub.
    """
    here = pathlib.Path(folder) / name
    if folder and here.is_dir():
        return here
    repository, inside = (text.format(name=name) for text in _PUBLISHED[suite])
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(
            repository, repo_type="dataset", allow_patterns=f"{inside}/*" if inside else None
        )
    except Exception as error:  # no network, in any of the ways in which there can be none
        missing = f"{here} is not there" if folder else "--data.folder is missing"
        raise UserError(
            f"{missing}, and https://huggingface.co/datasets/{repository} cannot be downloaded "
            f"({type(error).__name__}): download it elsewhere to FOLDER/{name} and pass "
            "--data.folder FOLDER"
        ) from None
    return pathlib.Path(found) / inside


def _read_part(folder: pathlib.Path, part: str, facts: PublishedTask) -> Rows | None:
    """Reads the rows of a split, labels as names of classes; None if the split is missing."""
    for word in SPLITS[part]:
        for place in (folder, folder / "data"):
            files = sorted(
                path
                for path in place.glob(f"{word}*")
                if path.name.endswith(_ENDINGS) and path.name[len(word)] in "-."
            )
            if files:
                rows = [row for path in files for row in _table(path)]
                return Rows(files[0], [(n, s, [_class_name(lab[0], facts)]) for n, s, lab in rows])
        if (folder / word).is_dir():
            return _class_folders(folder / word, facts)
    return None


def _table(path: pathlib.Path) -> Rows:
    """Reads a table whose columns have one of the usual names."""
    for column in _SEQUENCE_COLUMNS[:-1]:
        try:
            return read_rows(path, LabelledConfig(sequence=column))
        except UserError as error:
            if f"has no column {column}" not in str(error):
                raise
    return read_rows(path, LabelledConfig(sequence=_SEQUENCE_COLUMNS[-1]))


def _class_name(label: str, facts: PublishedTask) -> str:
    return (
        facts.classes[int(label)]
        if label.isdecimal() and int(label) < len(facts.classes)
        else label
    )


def _class_folders(folder: pathlib.Path, facts: PublishedTask) -> Rows:
    """Reads sequences in text files. The order of the classes is known, not that of the folders."""
    rows = []
    for name in facts.classes:
        for path in sorted((folder / name).glob("*.txt")):
            try:
                bases, _ = canonical(path.read_bytes().strip())
            except StrangeByte as error:
                raise UserError(f"{path}: {error}") from None
            rows.append((f"{name}/{path.name}", bases, [name]))
    found = {path.name for path in folder.iterdir() if path.is_dir()}
    if not rows or not found <= set(facts.classes):
        raise UserError(
            f"{folder} holds the classes {', '.join(sorted(found)) or 'none'}; expected are "
            f"{', '.join(facts.classes)}, each with .txt files"
        )
    return Rows(folder, rows)
