"""Owns the laws of the pages that users read: what they show runs, what they name exists, what they promise of
themselves holds. (docs/tools/reachable.py, of `make docs`: links and clicks.)
"""

import ast
import itertools
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import forked
import pages
import pytest
import torch

import pyadamw._native.library
from pyadamw import cli

ROOT, TEXTS = pages.ROOT, pages.all_pages()
sys.path.insert(0, str(ROOT / "docs" / "tools"))

LANGUAGES = {"python", "c", "sh", "diff"}


def with_blocks(language):
    return sorted(name for name, text in TEXTS.items() if pages.code(text, language))


def test_every_block_is_known():
    """Every code block is of a language of which the tests below run every block."""
    assert {block.language for text in TEXTS.values() for block in pages.blocks(text)} <= LANGUAGES


# What must hold after the Python of a page has run, of the pages whose code could run and show nothing.
HOLDS = {
    "README.md": "assert {t.dtype for s in optimizer.state.values() for t in s.values()} >= {torch.uint8}",
    "docs/howto/bfloat16.md": "assert {t.dtype for t in weights.values()} == {torch.float32}",
    "docs/howto/clipping.md": "assert norm > 0",
    "docs/howto/paging.md": "assert 'file' in str(optimizer.memory_report())",
    "docs/howto/groups.md": "assert [e.bits for e in optimizer.memory_report().entries[:2]] == [32, 8]",
    "docs/howto/trainers.md": "assert cls is pyadamw.PagedAdamW8bit and options['lr'] == 1e-4",
    "docs/internals/codes.md": "assert error < 0.02",
}


@pytest.mark.parametrize("name", with_blocks("python"))
def test_python(name, tmp_path):
    """The Python of a page runs from top to bottom, as a reader would type it."""
    script = f"import os; os.chdir({str(tmp_path)!r})\n" + "\n".join(pages.code(TEXTS[name], "python"))
    done = forked.run(script + "\n" + HOLDS.get(name, ""))
    assert done.returncode == 0, done.stderr[-2000:]


PEERS = {"torch": "torch", "bitsandbytes": "bitsandbytes", "torchao": "torchao.optim", "flashoptim": "flashoptim"}


@pytest.mark.parametrize(
    "text", pages.code(TEXTS["docs/start.md"], "diff"), ids=["torch", "bitsandbytes", "torchao", "flashoptim"]
)
def test_diffs(text):
    """Each diff begins with a call that its package takes, and ends with one that this package takes."""
    before, after = (re.search(rf"^\{sign}optimizer = (.*)$", text, flags=re.MULTILINE)[1] for sign in "-+")
    peer = before.split(".")[0]
    model = torch.nn.Linear(64, 64)
    exec(after, {"pyadamw": pyadamw, "model": model})
    if peer != "flashoptim":  # which needs a GPU
        pytest.importorskip(PEERS[peer])
        exec(before, {peer: __import__(PEERS[peer]), "model": model})


def targets():
    return set(re.findall(r"^([a-z -]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


def commands():
    for name, text in TEXTS.items():
        for block in pages.code(text, "sh"):
            for line in block.splitlines():
                command = line.split("  #")[0].strip()
                if command:
                    yield name, command


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    """A folder with the files that the commands of the pages name."""
    monkeypatch.chdir(tmp_path)
    model = torch.nn.Linear(64, 256)
    optimizer = pyadamw.AdamW8bit(model.parameters())
    model(torch.randn(2, 64)).sum().backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), "IN")
    torch.save({"optimizer": optimizer.state_dict(), "model": model.state_dict()}, "checkpoint.pt")
    case = torch.load(ROOT / "tests" / "golden" / "flashoptim.pt", weights_only=True)["24 bits, quantized state"]
    torch.save(case["state_dict"], "flash.pt")
    torch.save({f"w{number}": param for number, param in enumerate(case["params"])}, "model.pt")


def test_commands(checkpoints, capsys):
    """Every command of the pages runs; what builds or installs is a target of the Makefile, or of pip, conda, cmake."""
    known = set(itertools.chain.from_iterable(line.split() for line in targets()))
    for name, command in commands():
        first, *others = command.split()
        if first == "make":
            assert others[0] in known, (name, command)
        elif first in ("pip", "conda", "cmake") or first.startswith("ADAMW_CUDA="):
            continue  # make wheel, make conda and ci/installed run these
        else:
            assert [first, *others[:2]] == ["python", "-m", "pyadamw"], (name, command)
            if others[2] != "demo":  # make demo
                assert cli.main(others[2:]) == 0, (name, command, capsys.readouterr().err)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("name", with_blocks("c"))
def test_c(name, tmp_path):
    """The C of a page compiles as strict C99 without a warning and moves its weights by lr a step, downhill."""
    (text,) = pages.code(TEXTS[name], "c")
    (tmp_path / "example.c").write_text(text)
    library = Path(pyadamw._native.library.library().path)
    for copy in (library.name, "libadamw.so.1"):  # whichever its SONAME is
        shutil.copy(library, tmp_path / copy)
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I", ROOT / "include", f"-Wl,-rpath,{tmp_path}"]
    subprocess.run(["cc", *flags, "example.c", "libadamw.so.1", "-o", "example"], cwd=tmp_path, check=True)
    output = subprocess.run(["./example"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    first, second = map(float, re.search(r"weights after 10 steps: (\S+) (\S+)", output).groups())
    # A constant gradient of +-1 makes every update lr = 0.01. The decay of 1e-4 a step takes less than 0.1% of 0.1, and
    # a stored moment is at most 0.7% short.
    assert first == pytest.approx(0.1, rel=8e-3)
    assert second == pytest.approx(-0.1, rel=8e-3)


def said():
    """Every text in the sources of the package and of the library, with what is filled in left out."""
    found = []
    for path in (ROOT / "pyadamw").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("\0".join(v.value for v in node.values if isinstance(v, ast.Constant)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_errors_are_quoted():
    """Every message in the table of errors is one that the sources have."""
    table = TEXTS["docs/reference/errors.md"].split("## Statuses")[0]
    quoted, texts = re.findall(r"^\| `(.*?)` \|", table, flags=re.MULTILINE), said()
    assert len(quoted) > 20
    for message in quoted:
        parts = [part.strip(" :") for part in message.split("...")]
        assert any(all(part in text for part in parts) for text in texts), message


def test_statuses_are_the_exceptions():
    """The table of statuses names each exception with the class that it also is."""
    rows = re.findall(r"\| `ADAMW_ERROR_(\w+)` \| `(\w+)` \| `(\w+)` \|", TEXTS["docs/reference/errors.md"])
    assert len(rows) == 7
    for _, name, other in rows:
        assert issubclass(getattr(pyadamw, name), __builtins__[other])


def test_readme_is_short():
    """The README has at most 120 lines, and at most 3 sentences of more than 30 words."""
    text = TEXTS["README.md"]
    long = [s for s in pages.sentences(text) if len(s.split()) > 30]
    assert len(text.splitlines()) <= 120
    assert len(long) <= 3, long


def test_sentences_are_found():
    """The reader of sentences counts words across lines, and neither code nor tables."""
    text = "# Head line\n\nOne two\nthree. Four `five` six:\n\n- seven eight\n- Nine.\n\n"
    text += "```sh\nten eleven\n```\n\n| a | b |\n"
    assert list(pages.sentences(text)) == ["One two three.", "Four `five` six:", "seven eight", "Nine."]


def test_readme_table_is_generated():
    """The README's table is what docs/tools makes of the records."""
    import choices

    assert choices.with_readme_table(TEXTS["README.md"]) == TEXTS["README.md"]


def test_tables_of_the_site():
    """Every generated table names only records that exist, and has a number in each of its rows."""
    import speed

    for make in (speed.cpu, speed.additions, speed.gpu, speed.gpu_pages, speed.links, speed.cpu_pages):
        text = make()
        rows = [line for line in text.splitlines()[2:] if line.startswith("|")]
        assert rows and all(re.search(r"\| \d", row) for row in rows)
        assert all((ROOT / path).exists() for path in re.findall(r"`(tests/[^`]+)`", text))


def test_every_recipe_is_on_its_page():
    """The page of recipes has every file of docs/recipes, with its first sentences and all of its text."""
    import recipes

    text = recipes.page()
    for path in recipes.FOLDER.iterdir():
        if path.is_file():
            assert f"recipes/{path.name}\n" in text
            assert recipes.opening(path)[0].split(". ")[0] in text


def test_c_reference_is_whole():
    """The page of the C interface has every function, struct and enum of the header, and each its comment."""
    import header

    text = (ROOT / "include" / "adamw.h").read_text(encoding="utf-8")
    page, commented = header.page(text), header.for_doxygen(text)
    functions = re.findall(r"^ADAMW_API [^;]*?(adamw_\w+)\(", text, flags=re.MULTILINE)
    assert len(functions) > 25
    for function in functions:
        assert f".. doxygenfunction:: {function}\n" in page
        assert re.search(rf"\\endverbatim \*/\nADAMW_API [^;]*?\b{function}\(", commented), function
    for kind in ("struct", "enum"):
        for name in re.findall(rf"^typedef {kind} (adamw_\w+) {{", text, flags=re.MULTILINE):
            assert f".. doxygen{kind}:: {name}\n" in page


def test_broken_links_are_found(tmp_path):
    """A link to a missing page or place, and a page three clicks away are reported; a good site is not."""
    import reachable

    good = {"index.html": '<a href="a.html#x">', "a.html": '<i id="x"><a href="b.html">', "b.html": "", "c.html": ""}

    def problems(**changes):
        for name, text in (good | {f"{k}.html": v for k, v in changes.items()}).items():
            (tmp_path / name).write_text(text)
        return list(reachable.problems(tmp_path))

    far = "c.html is more than two clicks from the first page"
    assert problems() == [far]
    assert problems(b='<a href="c.html">') == [far]
    assert problems(b='<a href="no.html">') == ["b.html: no.html does not exist", far]
    assert problems(b='<a href="a.html#no">') == ["b.html: a.html has no place 'no'", far]
    assert problems(a='<i id="x"><a href="b.html"><a href="c.html">') == []


def test_layout_of_comments():
    """Comments of the header become reStructuredText: lists, code, errors, and no accidental markup."""
    import header

    made = header.restructured(
        header.body(
            textwrap.dedent("""\
                /* Sets *name to |x| of adamw_step() * 2.
                 *   - one,
                 *     two
                 *
                 *     code(x) * 2
                 *
                 * Errors:
                 *   DEVICE  a call
                 *           failed */""")
        )
    )
    assert "Sets \\*name to \\|x\\| of ``adamw_step()`` \\* 2." in made
    assert "- one, two\n" in made
    assert ".. code-block:: text\n\n   code(x) * 2\n" in made
    assert made.endswith("``DEVICE``\n   a call failed")
