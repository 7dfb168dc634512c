"""The names that files and tables use for the three parts of a data set."""

# Of each part, the names that its files may have; the first is the one used here.
SPLITS: dict[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "dev"),
    "test": ("test",),
}
# The names that stand in a column of a table or of a BED file.
_PART_OF = {"train": "train", "validation": "validation", "valid": "validation", "test": "test"}


def split_of(name: str) -> str | None:
    """Returns "train", "validation" or "test" for a name in a column, None for any other text."""
    return _PART_OF.get(name)
