"""Owns how include/adamw.h becomes pages: its comments as reStructuredText, for Doxygen, and the order of its sections.

usage: header.py FILE          prints FILE with comments that Doxygen reads (Doxygen calls it so: INPUT_FILTER)
       header.py FILE --page   prints the page of the reference, which names each entity in the header's order
Must not know what the library does.
"""

import re
import sys
import textwrap
from pathlib import Path

COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
SECTION = re.compile(r"/\* ---- (.*?) -+ \*/")


def body(comment):
    """The lines of a comment without what marks them as one, and without their common indentation."""
    lines = comment.removeprefix("/*").removesuffix("*/").rstrip().split("\n")
    marked = all(line.lstrip().startswith("*") or not line.strip() for line in lines[1:])
    rest = [re.sub(r"^ ?\* ?", "", line) if marked else line for line in lines[1:]]
    filled = [len(line) - len(line.lstrip()) for line in rest if line.strip()]
    common = 0 if marked else min(filled, default=0)
    return [lines[0].strip(), *(line[common:].rstrip() for line in rest)]


def prose(text):
    """A line of prose with what reStructuredText would read as markup escaped, and code as code."""
    parts = re.split(r"(`[^`]+`|\*?\b(?:ADAMW_[A-Z0-9_]+|adamw_\w+(?:\.\w+)?)(?:\(\))?\*?)", text)
    made = ""
    for number, part in enumerate(parts):
        if number % 2:
            # Inline code must be set off from a letter that touches it.
            made += ("\\ " if re.search(r"\w$", made) else "") + f"``{part.strip('`')}``"
        else:
            plain = re.sub(r"([*`|\\])|(?<=\w)_(?=\W|$)", lambda match: "\\" + match[0], part)
            made += ("\\ " if number and re.match(r"\w", plain) else "") + plain
    return made


def errors(lines):
    """The entries "NAME  text" after "Errors:", as a definition list. What is left of the lines comes second."""
    entries, taken = [], 0
    for line in lines:
        entry = re.match(r"  ([A-Z_]{3,})  +(.*)", line)
        if entry:
            entries.append([entry[1], [entry[2]]])
        elif entries and line.startswith("    ") and line.strip():
            entries[-1][1].append(line.strip())
        else:
            break
        taken += 1
    made = []
    for name, words in entries:
        made += [f"``{name}``", f"   {prose(' '.join(words))}", ""]
    return made, lines[taken:]


def restructured(lines):
    """The lines of a comment as reStructuredText."""
    made, left = [], list(lines)
    while left:
        line = left.pop(0)
        indent = len(line) - len(line.lstrip())
        if line.startswith("Errors:"):
            entries, rest = errors(left)
            made += ["", f"**Errors**{prose(line.removeprefix('Errors').rstrip(':') or '')}", "", *entries]
            left = rest
        elif re.match(r" *(- |\d\. )\S", line):
            marker = re.match(r" *(- |\d\. )", line)[1]
            words = [line.strip().removeprefix(marker)]
            while left and left[0].strip() and len(left[0]) - len(left[0].lstrip()) >= indent + 2:
                if re.match(r" *(- |\d\. )\S", left[0]):
                    break
                words.append(left.pop(0).strip())
            made += ["", f"{marker}{prose(' '.join(words))}", ""]
        elif line.strip() and indent >= 4:
            block = [line]
            while left and (not left[0].strip() or left[0].startswith("   ")):
                block.append(left.pop(0))
            text = textwrap.dedent("\n".join(block)).strip("\n")
            made += ["", ".. code-block:: text", "", textwrap.indent(text, "   "), ""]
        elif re.match(r"  \w+(?: \w+){0,2}  +\S", line):  # a table of words and what they mean
            rows = [re.match(r"  (\w+(?: \w+){0,2})  +(.*)", line).groups()]
            while left and left[0].strip():
                row = re.match(r"  (\w+(?: \w+){0,2})  +(.*)", left[0])
                if row is None:
                    rows[-1] = (rows[-1][0], f"{rows[-1][1]} {left[0].strip()}")
                else:
                    rows.append(row.groups())
                left.pop(0)
            for name, words in rows:
                made += ["", f"{name}", f"   {prose(words)}", ""]
        elif re.fullmatch(r"(Words|Promises \(\w+\)|Not promised)", line):
            made += ["", f"**{line}**", ""]
        elif line.strip():
            made.append(prose(line.strip()))
        else:
            made.append("")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(made)).strip()


def for_doxygen(text):
    """The header with each comment as one that Doxygen gives to what comes after it, or to the member before it."""

    def change(match):
        before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()].strip()
        content = restructured(body(match[0]))
        if SECTION.match(match[0]) or match.start() == 0 or before.startswith("#"):
            return ""
        after = "<" if before else ""
        return f"/**{after} \\verbatim embed:rst\n{content}\n\\endverbatim */"

    return COMMENT.sub(change, text)


ENTITY = re.compile(
    r"^typedef (?P<kind>enum|struct) (?P<type>adamw_\w+) \{|^typedef enum (?P<short>adamw_\w+) \{"
    r"|^typedef struct (?P<opaque>adamw_\w+) \1?adamw_\w+;|^ADAMW_API [^;]*?(?P<function>adamw_\w+)\("
    r"|^#define (?P<macro>ADAMW_[A-Z0-9_]+)(?: |$)",
    re.MULTILINE,
)


def page(text):
    """The page of the reference."""
    top = restructured(body(COMMENT.match(text)[0])[2:])
    made = ["# The C interface", "", "```{eval-rst}", top, "```", ""]
    declared = text[: text.index("The layout that compiled programs rely on")]
    starts = [*SECTION.finditer(declared)]
    for number, section in enumerate(starts):
        end = starts[number + 1].start() if number + 1 < len(starts) else len(declared)
        part = declared[section.end() : end]
        made += [f"## {section[1].strip().capitalize()}", "", "```{eval-rst}"]
        made += [restructured(body(remark)) + "\n" for remark in remarks(part)]
        for entity in ENTITY.finditer(part):
            kind = entity["kind"] or ("enum" if entity["short"] else None)
            if kind == "struct":
                made += [f".. doxygenstruct:: {entity['type']}", "   :members:", ""]
            elif kind == "enum":
                made += [f".. doxygenenum:: {entity['type'] or entity['short']}", ""]
            elif entity["function"]:
                made += [f".. doxygenfunction:: {entity['function']}", ""]
            elif entity["macro"]:
                made += [f".. doxygendefine:: {entity['macro']}", ""]
        made += ["```", ""]
    return "\n".join(made)


def remarks(part):
    """The comments of a section that belong to no declaration: an empty line, or the end, follows them."""
    return [match[0] for match in COMMENT.finditer(part) if _alone(part, match)]


def _alone(part, match):
    before = part[part.rfind("\n", 0, match.start()) + 1 : match.start()].strip()
    return not before and part[match.end() : match.end() + 2].strip() == "" and part[match.end() :].startswith("\n\n")


def main(arguments):
    text = Path(arguments[0]).read_text(encoding="utf-8")
    print(page(text) if "--page" in arguments[1:] else for_doxygen(text))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
