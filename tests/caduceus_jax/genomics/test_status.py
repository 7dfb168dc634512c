"""The one list of statuses."""

import pathlib
import re

from caduceus_jax.genomics.status import Status


def test_every_status_is_documented():
    """A person who meets a status in a file finds it in the page on bad input."""
    page = pathlib.Path(__file__).parents[3] / "docs" / "bad-input.md"
    documented = re.findall(r"^\| `(\w+)` \|", page.read_text(), re.MULTILINE)
    assert documented == [status.value for status in Status]
