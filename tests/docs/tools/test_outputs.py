"""Transcripts in the pages: their commands, and what is written below them."""

from docs.tools import outputs

PAGE = """\
text
```console
$ echo one
stale
$ echo two \\
  three
```
    ```console
    $ pwd; cat missing
    ```
```sh
$ not run
```
"""


def test_commands():
    first, second = outputs.transcripts(PAGE)
    assert outputs.commands(first) == ["echo one", "echo two \\\n  three"]
    assert outputs.commands(second) == ["pwd; cat missing"]


def test_output_is_replaced_and_all_else_stays(tmp_path):
    (tmp_path / "here").mkdir()
    new = outputs.rewritten(PAGE, tmp_path / "here")
    assert new.startswith(
        "text\n```console\n$ echo one\none\n$ echo two \\\n  three\ntwo three\n```"
    )
    assert "    cat: missing: No such file or directory\n    ```\n" in new
    assert new.endswith("```sh\n$ not run\n```\n")
    assert outputs.rewritten(new, tmp_path / "here") == new
