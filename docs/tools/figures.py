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


def laws(folder):
    """The page of the laws with its pictures, and the table of the page on bfloat16 weights."""
    sys.path.append(str(ROOT / "tests" / "laws"))
    import record
    import tables

    path = sorted(RESULTS.glob("*-laws.json"))[-1]
    content = record.read(path)
    subprocess.run(
        [sys.executable, ROOT / "tests" / "laws", "--plots", folder, path], check=True, stdout=subprocess.DEVNULL
    )
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items() if version)
    made = [f"Measured with {versions}, on {content['machine']['cpu']}. Source: `{path.relative_to(ROOT)}`.", ""]
    for name, law in content["laws"].items():
        picture = f"law-{name.replace('_', '-')}.svg"
        made += [
            f"## {law['title']}",
            "",
            law["promise"],
            "",
            f"![{law['title']}](_generated/{picture})",
            "",
        ]
        made += [*tables.table(name, law), ""]
        made += [f"Not measured: {who} ({why}).\n" for who, why in law["missing"].items()]
    made += ["## What to know of these figures", ""]
    made += [f"- {note}" for note in content["notes"]]
    made += ["- What was not FlashOptim's own:", *(f"  - {change}" for change in content["changes"])]
    (folder / "laws.md").write_text("\n".join(made) + "\n", encoding="utf-8")
    weights = tables.table("weights", content["laws"]["weights"])
    (folder / "master_weights.md").write_text("\n".join(weights) + "\n", encoding="utf-8")


# ---- the command line ----


def printed(*arguments):
    """What `python -m pyadamw` prints with these arguments."""
    environment = {"COLUMNS": "100", "PATH": "/usr/bin:/bin", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "pyadamw", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return f"```text\n{done.stdout.rstrip()}\n```\n"


def command_line():
    """The help of each command, as it prints it."""
    from pyadamw import cli

    return "\n".join(f"## {name}\n\n{printed(name, '--help')}" for name in cli._COMMANDS)


def plan():
    return printed("plan", "7B", "--gpu", "24GiB")


TABLES = {
    "cpu": speed.cpu,
    "additions": speed.additions,
    "gpu": speed.gpu,
    "gpu_pages": speed.gpu_pages,
    "links": speed.links,
    "cpu_pages": speed.cpu_pages,
    "bytes": choices.bytes_table,
    "command_line": command_line,
    "plan": plan,
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
    printed("plan", "7B", "--gpu", "24GiB", "--plot", str(folder / "plan.svg"))
    shutil.copy(RESULTS / "demo.png", folder)
    laws(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
