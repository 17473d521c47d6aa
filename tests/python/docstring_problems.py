"""Owns what is public, and what is wrong with its docstrings. Must not know which names the package has."""

import builtins
import importlib
import inspect
import re
from typing import NamedTuple

import test_names
from docstring_reader import attributes_in_source, entries, is_ours, prose, sections

import pyadamw
from pyadamw._plan.choices import Choice
from pyadamw._state.report import Entry, MemoryReport

MODULES = ("pyadamw", "pyadamw.optim", "pyadamw.functional", "pyadamw.errors", "pyadamw.demo")
TRAINER = "pyadamw.integrations.transformers"  # for which transformers must be there
RETURNED = (MemoryReport, Entry, Choice)  # what public names return, without being public names of a module
# What docstrings name of torch, Python and transformers, and functions of their own formulas.
FOREIGN = """
    backward step item model accumulate cpu float clip_grad_norm_ id str get_optimizer_cls_and_kwargs create_optimizer
    bits power sqrt min modules load_state_dict state_dict
"""


class Item(NamedTuple):
    """A public name: of a module, or of a class."""

    owner: object  # the module or class
    name: str | None  # None: the owner itself
    value: object  # a module, class, function or property; None: an attribute of instances

    @property
    def title(self):
        owner = getattr(self.owner, "__qualname__", None) or self.owner.__name__
        return owner if self.name is None else f"{owner}.{self.name}"


def of_class(cls):
    """The items of a class: itself, and what it has that is not inherited from torch or Python as it is there."""
    yield Item(cls, None, cls)
    fields = getattr(cls, "_fields", ())
    for name in sorted({*dir(cls), *attributes_in_source(cls)}):
        owner = next((one for one in cls.__mro__ if name in vars(one)), None)
        if (name.startswith("_") and name != "__call__") or (owner is not None and not is_ours(owner)):
            continue
        value = None if owner is None or name in fields else inspect.getattr_static(cls, name)
        if isinstance(value, (classmethod, staticmethod)):
            value = value.__func__
        yield Item(cls, name, value if inspect.isroutine(value) or isinstance(value, property) else None)


def of_module(module):
    """The items of a module: itself, and those of its public names and of their classes."""
    yield Item(module, None, module)
    own = (name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__)
    for name in getattr(module, "__all__", None) or [name for name in own if not name.startswith("_")]:
        value = getattr(module, name)
        if inspect.isclass(value):
            yield from of_class(value)
        elif inspect.isfunction(value):
            yield Item(module, name, value)


def everything():
    """All items, each once, however many modules have it."""
    found = [item for name in MODULES for item in of_module(importlib.import_module(name))]
    found += [item for cls in RETURNED for item in of_class(cls)]
    return list({item.title: item for item in found}.values())


def parameters_of(item):
    """The names of what may be passed; those of a class are its constructor's."""
    if item.name is None and not (inspect.isclass(item.value) and is_ours(item.value.__init__)):
        return []
    if item.value is None or isinstance(item.value, property):
        return []
    names = list(inspect.signature(item.value).parameters)
    return names[1:] if names[:1] in (["self"], ["cls"]) and inspect.isfunction(item.value) else names


def documentation(item):
    """What runs shows of it."""
    return inspect.getdoc(item.value) if item.value is not None else None


def problems_of_text(text, parameters, known):
    """What is wrong with a docstring. `parameters`: what it has to explain; `known`: what it may name."""
    if not text:
        return ["no docstring"]
    found = []
    first = text.split("\n")[0]
    if not re.match(r"[A-Z]", first) or not first.endswith((".", ".)")):
        found.append(f"the first line is no sentence: {first}")
    args = entries(text, "Args")
    found += [f"{name} is not explained" for name in parameters if name not in args]
    found += [f"{name} is no argument" for name in args if name not in parameters]
    if not found and list(args) != list(parameters):
        found.append("the arguments are in another order")
    for section in ("Args", "Attributes", "Raises"):
        for name, said in entries(text, section).items():
            if not re.search(r"\w", said) or not said.rstrip().endswith("."):
                found.append(f"{section}: {name} is no sentence")
    for name in entries(text, "Raises"):
        error = getattr(builtins, name, None) or getattr(pyadamw, name, None)
        if not (inspect.isclass(error) and issubclass(error, BaseException)):
            found.append(f"{name} is no exception")
    returns = sections(text).get("Returns", ["."])
    if ":" in returns[0]:  # Sphinx would take what is before it for a type
        found.append("a colon in the first line of Returns")
    if "Example" in sections(text) and ">>> " not in text:
        found.append("an example that cannot be run")
    return found + [f"{name} does not exist" for name in sorted(unknown_names(text, known))]


def unknown_names(text, known):
    """Names in backticks, with (), and after pyadamw. or torch., which neither the packages nor `known` have."""
    text = prose(text)
    dotted = set(re.findall(r"(?<![\w./])(?:pyadamw|torch)(?:\.\w+)+", text))
    called = set(re.findall(r"(?<![\w.-])([A-Za-z_][\w.]*)\(", text)) - dotted
    quoted = set(re.findall(r"`([^`\n]+)`", text))
    absent = {name for name in dotted if not resolves(name)}
    absent |= {name for name in called if name.split(".")[-1] not in known}
    return absent | {one for snippet in quoted - known for one in test_names.missing(snippet) if one not in known}


def resolves(name):
    """What a dotted name is; None if it is nothing."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        owner, _, last = name.rpartition(".")
        found = resolves(owner) if owner else None
        return getattr(found, last, None) if found is not None else None
    return importlib.import_module(name)


EVERYTHING = everything()
KNOWN = test_names.NAMES | set(FOREIGN.split()) | {item.name for item in EVERYTHING} | set(dir(builtins))
KNOWN |= {name for item in EVERYTHING for name in parameters_of(item)}
OWNERS = {getattr(item.owner, "__qualname__", None) or item.owner.__name__: item.owner for item in EVERYTHING}


def problems(item):
    """What is wrong with the documentation of a public name."""
    if item.value is None:  # an attribute: its class, or one of its bases, explains it, or has an argument of its name
        texts = [cls.__doc__ for cls in item.owner.__mro__ if is_ours(cls)]
        said = {name for text in texts for section in ("Attributes", "Args") for name in entries(text, section)}
        return [] if item.name in said else ["an attribute that nothing explains"]
    text, parameters = documentation(item), parameters_of(item)
    if inspect.isclass(item.value):
        if not entries(text, "Args"):
            text = f"{text}\n\n" + "\n".join(in_init(item.value))
        attributes = entries(text, "Attributes").keys() - entries(text, "Args").keys()
        parameters = [name for name in parameters if name not in attributes]  # which explain an argument as well
    found = problems_of_text(text, parameters, KNOWN)
    if isinstance(item.value, property) and text and ":" in text.split("\n")[0]:
        found.append("a colon in the first line of a property")  # as in Returns
    return found


def in_init(cls):
    """The section Args of the docstring of __init__, for classes that only the package makes."""
    said = sections(cls.__init__.__doc__).get("Args", []) if is_ours(cls.__init__) else []
    return ["Args:", *(f"    {line}" for line in said)] if said else []


def with_problems(items):
    return {item.title: found for item in items if (found := problems(item))}
