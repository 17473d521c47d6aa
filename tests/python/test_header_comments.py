"""Owns the law that a comment explains everything in include/adamw.h. Must not know whether it is right."""

import re

import pytest
from harness import ROOT
from header_reader import functions

TEXT = (ROOT / "include" / "adamw.h").read_text(encoding="utf-8")


def without_comment(text):
    """The functions, types, fields and values of a header that no comment explains: before it, or behind it."""
    found = [name for name, (_, lines) in functions(text).items() if lines == [""]]
    found += re.findall(r"(?<!\*/\n)typedef (?:struct|enum) (adamw_\w+)(?: adamw_\w+;| \{)", text)
    for body in re.findall(r"typedef (?:struct|enum) adamw_\w+ \{(.*?)\} adamw_\w+;", text, flags=re.S):
        # A comment that continues in the next line begins in the line of what it explains.
        code = re.sub(r"/\*(?:(?!\*/).)*\*/", "/**/", body, flags=re.S)
        found += [line.strip() for line in code.split("\n") if re.search(r"\w", line) and "/**/" not in line]
    return found


def test_header_is_explained():
    """Every function, type, field and value of adamw.h has a comment."""
    assert len(functions(TEXT)) > 30
    assert without_comment(TEXT) == []


@pytest.mark.parametrize(
    ("comment", "missing"),
    [
        (" /* number of elements, in 0 ... 2^58 */", "numel;"),
        (" /* the upper half of a float32 */", "ADAMW_BFLOAT16 = 1,"),
        ("/* What a call returns. */\n", "adamw_status"),
        ("/* A page manager, see adamw_pager_create(). */\n", "adamw_pager"),
        ('/* Returns the name of a status, for example "invalid argument". Never NULL; static storage. */\n', "string"),
    ],
)
def test_can_fail(comment, missing):
    """What loses its comment is found."""
    assert comment in TEXT
    assert [name for name in without_comment(TEXT.replace(comment, "", 1)) if missing in name]
