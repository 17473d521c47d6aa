"""Owns reading include/adamw.h: what it says of each function and field. Must not know what is true of that."""

import re

STATUSES = ("INVALID_ARGUMENT", "VERSION", "UNSUPPORTED", "OUT_OF_MEMORY", "INTERNAL", "DEVICE", "STORAGE")
LIMITS = {"INT32_MAX": 2**31 - 1, "INT64_MAX": 2**63 - 1, "infinity": float("inf")}


def _plain(comment):
    """The lines of a comment without what marks them as one."""
    return [re.sub(r"^ ?\* ?", "", line) for line in comment.strip().removeprefix("/*").removesuffix("*/").split("\n")]


def functions(text):
    """{name: (whether it returns a status, the lines of the comment before it)} of all functions."""
    found = {}
    pattern = r"(?:(/\*(?:(?!\*/).)*\*/)\n)?ADAMW_API (.*?)(adamw_\w+)\("
    for comment, returns, name in re.findall(pattern, text, flags=re.S):
        found[name] = (returns.strip() == "adamw_status", _plain(comment))
    return found


def listed_statuses(lines):
    """The statuses in the "Errors:" of a comment, each at the beginning of a line; None if there are no "Errors:"."""
    begin = next((i for i, line in enumerate(lines) if line.startswith("Errors:")), None)
    if begin is None:
        return None
    found = [re.match(r" +([A-Z_]+)  +\S", line) for line in lines[begin + 1 :]]
    return [match[1] for match in found if match]


def all_statuses(text):
    """{function: its listed statuses, or None} of the functions that return a status."""
    return {name: listed_statuses(lines) for name, (status, lines) in functions(text).items() if status}


def _fields(text):
    """(struct, field, comment) of all structs."""
    for struct, body in re.findall(r"typedef struct (adamw_\w+) \{\n(.*?)\n\} adamw_\w+;", text, flags=re.S):
        for field, comment in re.findall(r"(\w+);\s*(/\*.*?\*/)?", body, flags=re.S):
            yield struct, field, " ".join(" ".join(_plain(comment)).split())


_CLOSED = r"(?P<from>[\w^-]+) \.\.\. (?P<to>[\w^]+(?: - \w+)?)"
_INTERVAL = r"(?P<left>[\[(])(?P<low>[^,\s]+), (?P<high>[^)\s]+)(?P<right>[\])])"
_RANGE = rf"in (?:{_CLOSED}|{_INTERVAL})"


def _ends(match):
    """(lower end, whether it belongs to the range, upper end, whether it does) of a match of _RANGE."""
    if match["from"]:
        return match["from"], True, match["to"], True
    return match["low"], match["left"] == "[", match["high"], match["right"] == "]"


def all_ranges(text):
    """{(struct or function, field or parameter): its range as _ends() has it} of all that have one."""
    found = {}
    for struct, field, comment in _fields(text):
        match = re.search(r"\b" + _RANGE, comment)
        if match:
            found[struct, field] = _ends(match)
    for name, (_, lines) in functions(text).items():
        for match in re.finditer(r"\b(?P<name>\w+) " + _RANGE, " ".join(" ".join(lines).split())):
            found[name, match["name"]] = _ends(match)
    return found


def number(text, names):
    """What an end of a range is; `names` has the numbers of what it refers to."""
    known = {**LIMITS, **names}

    def one(word):
        base, _, exponent = word.partition("^")
        if exponent:
            return int(base) ** int(exponent)
        return known[word] if word in known else int(word) if re.fullmatch(r"-?\d+", word) else float(word)

    first, *others = text.split(" - ")
    return one(first) - sum(map(one, others))


def named_functions(text):
    """Everything that is written like a call of a function of the library."""
    return set(re.findall(r"\b(adamw_\w+)\(\)", text))
