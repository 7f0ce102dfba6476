"""Checks a site that was built: links and anchors lead somewhere, and nothing comes from elsewhere.

python docs/site/check.py FOLDER
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

# What a browser fetches by itself; `a` is followed by a person, and may lead anywhere.
FETCHED = {"audio", "embed", "iframe", "img", "link", "script", "source", "video"}


class Page(HTMLParser):
    """Where a page's elements point, and which places it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.targets: list[tuple[str, str]] = []
        self.places: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called by the parser."""
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.places.add(value)
            if name in ("href", "src", "data-src") and value:
                self.targets.append((tag, value))


def faults(folder: Path) -> list[str]:
    """A line for each fault of the site in a folder."""
    pages = {path.resolve(): Page(path) for path in folder.rglob("*.html")}
    found = []
    for path, page in pages.items():
        where = path.relative_to(folder.resolve())
        for tag, target in page.targets:
            address, place = urldefrag(unquote(target))
            if re.match(r"(\w+:)?//", address):
                if tag in FETCHED:
                    found.append(f"{where}: <{tag}> fetches {target}")
            elif not re.match(r"(data|mailto):", target):
                # The page for errors of a server has absolute links.
                root = folder.resolve() if address.startswith("/") else path.parent
                to = (root / address.lstrip("/")).resolve() if address else path
                if where.name != "404.html" and not to.is_file():
                    found.append(f"{where}: {target} is not there")
                elif place and to in pages and place not in pages[to].places:
                    found.append(f"{where}: {target} has no such place")
    for style in folder.rglob("*.css"):
        for target in re.findall(
            r"(?:url\(|@import )['\"]?((?:\w+:)?//[^'\")]+)", style.read_text()
        ):
            found.append(f"{style.relative_to(folder)}: fetches {target}")
    if not pages:
        found.append(f"{folder}: no page")
    return found


if __name__ == "__main__":
    lines = faults(Path(sys.argv[1]))
    print("\n".join(lines) or "links and anchors lead somewhere; nothing is fetched from elsewhere")
    sys.exit(bool(lines))
