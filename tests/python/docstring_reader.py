"""Owns reading docstrings of Google's style, in what runs and in the source. Must not know what they should say."""

import ast
import functools
import importlib
import inspect
import re
import textwrap
from pathlib import Path

import pyadamw

ROOT = Path(pyadamw.__file__).parent
SECTIONS = ("Args", "Attributes", "Example", "Raises", "Returns")


def sections(text):
    """{name: its lines, without the indentation} of a docstring; what is in no section has the name ""."""
    found, name = {"": []}, ""
    for line in inspect.cleandoc(text or "").split("\n"):
        header = re.fullmatch(r"(\w+):", line)
        if header and header[1] in SECTIONS:
            name = header[1]
            found[name] = []
        elif line and not line.startswith(" "):
            name = ""
        found[name].append(line)
    return {
        name: textwrap.dedent("\n".join(lines[bool(name) :])).strip("\n").split("\n") for name, lines in found.items()
    }


def entries(text, section):
    """{name: its explanation} of a section such as Args, in which each entry begins with "name: "."""
    found, name = {}, None
    for line in sections(text).get(section, []):
        begin = re.match(r"(\*{0,2}\w+): ?(.*)", line)
        if begin:
            name = begin[1].lstrip("*")
            found[name] = begin[2]
        elif name is not None:
            found[name] += "\n" + line
        elif line:
            found[line] = ""  # which is no entry at all
    return found


def prose(text):
    """A docstring without its examples and other blocks of code."""
    text = re.sub(r"^ *>>>.*\n(?: *\S.*\n?)*", "", inspect.cleandoc(text or "") + "\n", flags=re.M)
    kept, code = [], None
    for line in text.split("\n"):
        indent = len(line) - len(line.lstrip())
        if code is not None and line and indent <= code:
            code = None
        if code is None:
            kept.append(line)
            code = indent if line.endswith("::") else None
    return "\n".join(kept)


# ---- what the source has ---------------------------------------------------------------------------------------------


@functools.cache
def _tree(path):
    return ast.parse(Path(path).read_text(encoding="utf-8"))


def _module(name):
    return importlib.import_module(name).__file__


def _node(body, name):
    """The definition of a name in a body, or in its conditions: that with a docstring, if there are several."""
    found = []
    for node in body:
        if isinstance(node, ast.If):
            found.append(_node(node.body + node.orelse, name))
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            found.append(node)
    found = [node for node in found if node is not None]
    return next((node for node in found if ast.get_docstring(node)), found[-1] if found else None)


def class_node(cls):
    return _node(_tree(_module(cls.__module__)).body, cls.__name__)


def in_source(owner, name):
    """The docstring that editors show which run nothing; of a method, it may be that of a base class.

    `owner` is a module or a class, and `name` is None for its own docstring.
    """
    if inspect.ismodule(owner):
        if name is None:
            return ast.get_docstring(_tree(owner.__file__))
        node = _node(_tree(_module(getattr(owner, name).__module__)).body, getattr(owner, name).__name__)
        return node and ast.get_docstring(node)
    if name is None:
        return ast.get_docstring(class_node(owner))
    for cls in owner.__mro__:
        node = _node(class_node(cls).body, name) if is_ours(cls) else None
        if node is not None and ast.get_docstring(node):
            return ast.get_docstring(node)
    return None


def attributes_in_source(cls):
    """The public attributes that the methods of a class, and of its bases in the package, assign."""
    nodes = (node for one in cls.__mro__ if is_ours(one) for node in ast.walk(class_node(one)))
    stored = (node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
    return {node.attr for node in stored if ast.unparse(node.value) == "self" and not node.attr.startswith("_")}


def is_ours(thing):
    return (getattr(thing, "__module__", None) or "").split(".")[0] == "pyadamw"
