"""The checker of a built site's links."""

import subprocess
import sys

from docs.tools import links


def test_dead_links_are_found_and_live_ones_are_not(tmp_path):
    (tmp_path / "how-to").mkdir()
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "index.html").write_text(
        '<h1 id="top">x</h1><a href="#top"></a><a href="how-to/#part"></a><img src="a.png">'
        '<a href="https://elsewhere.org/x"></a><a href="mailto:x@y.z"></a>'
    )
    page = tmp_path / "how-to/index.html"
    page.write_text('<p id="part"></p><a href="../index.html#top"></a>')
    assert links.dead(tmp_path) == []
    page.write_text('<a href="../gone/"></a><a href="../#nowhere"></a><img src="../b.png">')
    assert links.dead(tmp_path) == [
        "how-to/index.html: ../gone/",
        "how-to/index.html: ../#nowhere",
        "how-to/index.html: ../b.png",
        "index.html: how-to/#part",
    ]
    words = [sys.executable, links.__file__, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 4
