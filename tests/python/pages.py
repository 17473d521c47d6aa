"""Owns reading the pages that users read (README.md and docs/): their code blocks, sentences and links. Must not know
any law.
"""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str


def all_pages():
    """{name: text} of README.md and of the pages of the site, but not of what is generated."""
    paths = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    return {str(p.relative_to(ROOT)): p.read_text(encoding="utf-8") for p in paths if "_generated" not in p.parts}


def blocks(text):
    """The code blocks of a page, in order. Directives ("```{include}") are no code."""
    return [Block(*found) for found in re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)]


def code(text, language):
    return [block.text for block in blocks(text) if block.language == language]


def sentences(text):
    """The sentences of a page's prose: no code, tables, pictures or headings; a bullet is by itself."""
    text = re.sub(r"^(```|:::+).*?^\1:*$", "\n\n", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^(#|\||<!--|!\[).*$", "\n", text, flags=re.MULTILINE)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    for paragraph in re.split(r"\n\s*\n|\n(?=- |\d\. )", text):
        words = " ".join(paragraph.split()).removeprefix("- ")
        yield from (part for part in re.split(r"(?<=[.:?!])\s+(?=[A-Z`])", words) if part)
