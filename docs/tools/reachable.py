"""Owns the law that a reader gets from the first page to every page in two clicks, and that no link inside the site is
broken.

usage: reachable.py FOLDER     of the built site. Must not know what the pages say.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

NOT_PAGES = {"genindex.html", "search.html", "py-modindex.html", "c-modindex.html"}


class Links(HTMLParser):
    """The targets of a page's links and pictures, and the places in it that links may name."""

    def __init__(self, path):
        super().__init__()
        self.targets, self.names = set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.names.update(found[name] for name in ("id", "name") if found.get(name))
        self.targets.update(found[name] for name in ("href", "src") if found.get(name))


def inside(root, page, target):
    """(path, place) of a target within the site, or None."""
    split = urlsplit(target)
    if split.scheme or split.netloc:
        return None
    path = (page.parent / unquote(split.path)).resolve() if split.path else page
    return path, unquote(split.fragment)


def problems(root):
    root = root.resolve()
    pages = {path: Links(path) for path in sorted(root.rglob("*.html")) if "_static" not in path.parts}
    next_to = {}
    for page, links in pages.items():
        found = [inside(root, page, target) for target in links.targets]
        next_to[page] = {path for path, _ in filter(None, found)}
        for path, place in filter(None, found):
            shown = f"{page.relative_to(root)}: {path.relative_to(root) if path.is_relative_to(root) else path}"
            if not path.exists():
                yield f"{shown} does not exist"
            elif place and path in pages and place not in pages[path].names:
                yield f"{shown} has no place {place!r}"
    first = root / "index.html"
    one = next_to[first] & set(pages)
    two = {first}.union(one, *(next_to[page] for page in one))
    for page in pages:
        if page not in two and page.name not in NOT_PAGES:
            yield f"{page.relative_to(root)} is more than two clicks from the first page"


def main(arguments):
    found = list(problems(Path(arguments[0])))
    print(*(f"error: {line}" for line in found), sep="\n", end="\n" if found else "", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
