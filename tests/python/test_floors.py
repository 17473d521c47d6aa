"""Owns the law of the floors: a module of the package imports from its own floor or from lower ones, and there is no
circle among the modules. An import inside of a function is an import.
"""

import ast
import graphlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "pyadamw"
# From the lowest up. What is not named, as __main__ and the folder demo, is on top.
FLOORS = (
    {"_checks", "errors", "_optional"},
    {"_native"},
    {"paging"},
    {"_options"},
    {"_state"},
    {"_step"},
    {"_base"},
    {"functional", "optim", "backward"},
    {"__init__"},
)


def floor(module):
    return next((i for i, names in enumerate(FLOORS) if module.split(".")[0] in names), len(FLOORS))


def modules(package):
    """{name within the package: its path}; "__init__" is the package itself."""
    paths = {".".join(path.relative_to(package).with_suffix("").parts): path for path in package.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in paths.items()}


def imports(name, path, known):
    """The modules of the package that a module imports."""
    folder = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
    folder = [] if name == "__init__" else folder
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            absolute = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [] if node.module is None else node.module.split(".")
            base = ["pyadamw", *folder[: len(folder) - node.level + 1], *base] if node.level else base
            absolute = [[*base, alias.name] for alias in node.names]
        else:
            continue
        for parts in absolute:
            if parts[0] == "pyadamw":
                found = (".".join(parts[1:stop]) for stop in range(len(parts), 1, -1))
                yield next((module for module in found if module in known), "__init__")


def climbs(package):
    """What breaks the law: [(module, what it imports)] from above. Raises graphlib.CycleError for a circle."""
    known = modules(package)
    graph = {name: set(imports(name, path, known)) - {name} for name, path in known.items()}
    graphlib.TopologicalSorter(graph).prepare()
    return [(name, other) for name, others in graph.items() for other in others if floor(other) > floor(name)]


def test_nobody_climbs():
    """Every import goes down or stays on its floor, and there is no circle."""
    assert climbs(PACKAGE) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("_native/library", "from .._state import formats"),
        ("_state/formats", "def late():\n    from .. import functional"),
        ("_options/options", "import pyadamw.optim"),
        ("_step/run", "from .plan import Plan"),
        ("_state/cuts", "from .. import AdamW"),
    ],
)
def test_can_fail(module, line, tmp_path):
    """An import from above, or one that closes a circle, is found wherever it stands."""
    for path in modules(PACKAGE).values():
        copy = tmp_path / path.relative_to(PACKAGE)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes() + (f"\n{line}\n".encode() if path == PACKAGE / f"{module}.py" else b""))
    try:
        assert module.replace("/", ".") in dict(climbs(tmp_path))
    except graphlib.CycleError as error:
        assert module.replace("/", ".") in error.args[1]
