"""Owns every figure of the site: tables and pictures from the records in tests/bench/results, so that none is typed.

usage: figures.py FOLDER     writes a file NAME.md for each table into FOLDER, and the pictures beside them
       figures.py --readme   rewrites the table in README.md; the tests compare it with what this makes
Must not know how anything was measured.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import choices
import recipes
import speed
from records import RESULTS, ROOT

# ---- the laws ----


def laws_record():
    return sorted(RESULTS.glob("*-laws.json"))[-1]


def laws(folder):
    """The pictures of the laws, drawn by the program that measured them."""
    name = laws_record()
    subprocess.run([sys.executable, ROOT / "tests" / "laws", "--plots", folder, name], check=True)


# ---- the command line ----


def command_line():
    """The help of each command, as it prints it."""
    from pyadamw import cli

    made = []
    for name in cli._COMMANDS:
        text = subprocess.run(
            [sys.executable, "-m", "pyadamw", name, "--help"],
            capture_output=True,
            text=True,
            check=True,
            env={"COLUMNS": "100", "PATH": "/usr/bin:/bin", "NO_COLOR": "1"},
        ).stdout
        made.append(f"## {name}\n\n```text\n{text.rstrip()}\n```\n")
    return "\n".join(made)


TABLES = {
    "cpu": speed.cpu,
    "additions": speed.additions,
    "gpu": speed.gpu,
    "gpu_pages": speed.gpu_pages,
    "links": speed.links,
    "cpu_pages": speed.cpu_pages,
    "bytes": choices.bytes_table,
    "command_line": command_line,
    "recipes": recipes.page,
}


def main(arguments):
    if arguments == ["--readme"]:
        readme = ROOT / "README.md"
        readme.write_text(choices.with_readme_table(readme.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in TABLES.items():
        (folder / f"{name}.md").write_text(make(), encoding="utf-8")
    choices.bytes_picture(folder / "bytes.svg")
    shutil.copy(RESULTS / "demo.png", folder)
    laws(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
