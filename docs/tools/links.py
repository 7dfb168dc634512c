"""Finds dead links within a built site.

    python docs/tools/links.py site

Every `href` and `src` that does not lead to another server must be a file of the site, and its
`#part` an element of that page. The exit status is 1 if one is not.
"""

import html.parser
import pathlib
import sys
import urllib.parse

_ATTRIBUTES = {"a": "href", "link": "href", "img": "src", "script": "src"}


class _Page(html.parser.HTMLParser):
    """Collects the links of a page, and the names that links may point to."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes what an element links to and how it is named."""
        found = dict(attrs)
        self.names |= {found[key] or "" for key in ("id", "name") if key in found}
        if link := found.get(_ATTRIBUTES.get(tag, "")):
            self.links.append(link)


def dead(site: pathlib.Path) -> list[str]:
    """Returns a line for each dead link within a site: the page, and where it points to."""
    pages = {path: _parsed(path) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        for link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            target = path
            if parts.path:
                target = (path.parent / urllib.parse.unquote(parts.path)).resolve()
            if target.is_dir():
                target = target / "index.html"
            name = urllib.parse.unquote(parts.fragment)
            known = pages[target].names if target in pages else None
            if not target.is_file() or (name and known is not None and name not in known):
                found.append(f"{path.relative_to(site)}: {link}")
    return found


def _parsed(path: pathlib.Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


if __name__ == "__main__":
    lines = dead(pathlib.Path(sys.argv[1]).resolve())
    print("\n".join(lines) or "no dead links")
    sys.exit(bool(lines))
