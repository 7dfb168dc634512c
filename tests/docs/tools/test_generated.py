"""The parts of the pages that are made from the package are up to date."""

import pytest

from caduceus_jax.models import RELEASED
from docs.tools import generated


@pytest.mark.parametrize("name", sorted({file for file, _ in generated.PARTS}))
def test_pages_have_what_the_package_has(name):
    stored = (generated.DOCS / name).read_text()
    assert generated.page(name) == stored, "run python docs/tools/generated.py"


def test_every_model_has_a_row_and_a_section():
    rows = [line for line in generated.models().splitlines() if line.startswith("| [`")]
    sections = [line for line in generated.details().splitlines() if line.startswith("### ")]
    assert len(rows) == len(sections) == len(RELEASED)
    assert "| human | PS | 131,072 | 7,725,312 | 30.9 | Apache-2.0 |" in rows[0]
