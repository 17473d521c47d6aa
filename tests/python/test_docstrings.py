"""Owns the law that everything public is explained where people look: help(), the site, and editors.

Two readers see two texts. What runs (help(), Sphinx) sees `__doc__`; editors see the source and run nothing. The two
are the same, but for the optimizer classes: what the source has once, in _AdamW.__init__, every class has when it runs.
"""

import doctest
import importlib
import inspect
import typing

import pytest
from docstring_problems import (
    EVERYTHING,
    KNOWN,
    OWNERS,
    TRAINER,
    documentation,
    everything,
    of_module,
    problems,
    problems_of_text,
    with_problems,
)
from docstring_reader import entries, in_source, is_ours
from harness import CLASSES

import pyadamw
from pyadamw._native.pager import Pager
from pyadamw._options.overrides import Overrides
from pyadamw._options.presented import EXPLAINED, POINTS_THERE
from pyadamw._state.report import MemoryReport

INNER = (Pager, Overrides)  # which public names return, but only the package uses
# Where an example must be; functions of pyadamw.__all__ have theirs anyway.
WITH_EXAMPLE = (
    pyadamw.AdamW,
    pyadamw.AdamW8bit,
    pyadamw.AdamW16bit,
    pyadamw.PagedAdamW8bit,
    pyadamw.StepInBackward,
    pyadamw.PageManager,
    pyadamw.GlobalOptimManager,
    MemoryReport,
)


@pytest.mark.parametrize("owner", OWNERS)
def test_everything_public_is_explained(owner):
    """Each public name has a docstring whose first line is a sentence, which explains all arguments and no others, and
    names no exception and no name that does not exist."""
    assert with_problems(item for item in EVERYTHING if item.owner is OWNERS[owner]) == {}


def test_trainer_is_explained():
    """The same, of the module that imports transformers."""
    pytest.importorskip("transformers")
    items = list(of_module(importlib.import_module(TRAINER)))
    assert len(items) > 5
    assert with_problems(items) == {}


def test_what_is_returned_is_explained():
    """A class of the package that a public name returns is among those that the tests above look at."""
    looked_at = {item.owner for item in EVERYTHING if inspect.isclass(item.owner)} | set(INNER)
    for item in EVERYTHING:
        function = item.value.fget if isinstance(item.value, property) else item.value
        if inspect.isroutine(function):
            hint = typing.get_type_hints(function).get("return")
            for part in (hint, *typing.get_args(hint)):
                assert not inspect.isclass(part) or not is_ours(part) or part in looked_at, (item.title, part)


@pytest.mark.parametrize("owner", OWNERS)
def test_editors_show_the_same(owner):
    """The source has the docstring that runs; the optimizer classes have there a line that says where the rest is."""
    for item in EVERYTHING:
        if item.owner is not OWNERS[owner] or item.value is None:
            continue
        static = in_source(item.owner, item.name)
        if item.name is None and item.value in CLASSES:
            before, after = static.split(EXPLAINED)
            assert item.value.__doc__.startswith(before) and item.value.__doc__.endswith(after)
            assert EXPLAINED not in item.value.__doc__
        else:
            assert static == documentation(item), item.title


@pytest.mark.parametrize("cls", CLASSES)
def test_editors_explain_the_arguments(cls):
    """In the source, __init__ explains all arguments of all classes, in the words that each class has when it runs."""
    static = in_source(cls, "__init__")
    parameters = list(inspect.signature(pyadamw.AdamW).parameters)
    assert problems_of_text(static, parameters, KNOWN) == []
    own = entries(cls.__doc__, "Args")
    assert own == {name: said for name, said in entries(static, "Args").items() if name in own}
    assert cls.__init__.__doc__ == POINTS_THERE


# ---- examples --------------------------------------------------------------------------------------------------------


def examples():
    """(title, docstring) of everything that has an example."""
    return [(item.title, text) for item in EVERYTHING if ">>> " in (text := documentation(item) or "")]


def run_example(title, text):
    """What the examples of a docstring print that they should not; "" if all is well."""
    said = []
    test = doctest.DocTestParser().get_doctest(text, {}, title, None, 0)
    doctest.DocTestRunner().run(test, out=said.append)
    return "".join(said)


@pytest.mark.parametrize(("title", "text"), examples(), ids=[title for title, _ in examples()])
def test_examples_run(title, text):
    """Each example prints what it says."""
    assert run_example(title, text) == ""


def test_examples_of_the_trainer_run():
    pytest.importorskip("transformers")
    found = [item for item in of_module(importlib.import_module(TRAINER)) if ">>> " in (documentation(item) or "")]
    assert len(found) == 2
    assert "".join(run_example(item.title, documentation(item)) for item in found) == ""


def test_main_names_have_examples():
    """Functions of pyadamw, the main classes and memory_report() show how they are used."""
    named = [getattr(pyadamw, name) for name in pyadamw.__all__]
    wanted = [*WITH_EXAMPLE, *filter(inspect.isfunction, named), pyadamw.AdamW.memory_report, pyadamw]
    assert [thing.__name__ for thing in wanted if ">>> " not in inspect.getdoc(thing)] == []


# ---- the tests above can fail ----------------------------------------------------------------------------------------

GOOD = """Adds two numbers.

Args:
    a: the first number.
    **b: the second
        number.

Returns:
    The sum of `a` and `b`, as quantize() does.

Raises:
    ValueError: a is not
        a number.
    StorageError: no disk.
"""


def test_a_good_docstring_has_no_problem():
    assert problems_of_text(GOOD, ["a", "b"], KNOWN | {"a", "b"}) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (GOOD, "", "no docstring"),
        ("numbers.", "numbers", "the first line is no sentence: Adds two numbers"),
        ("Adds two", "adds two", "the first line is no sentence: adds two numbers."),
        ("    a: the first number.\n", "", "a is not explained"),
        ("    a: the", "    c: the", "c is no argument"),
        ("    a: the first number.", "    a:", "Args: a is no sentence"),
        ("    a: the first number.", "    a: the first number", "Args: a is no sentence"),
        ("ValueError", "WrongError", "WrongError is no exception"),
        ("StorageError", "DiskError", "DiskError is no exception"),
        ("The sum of", "The sum: of", "a colon in the first line of Returns"),
        ("`a`", "`gradient_norm`", "gradient_norm does not exist"),
        ("quantize()", "requantize()", "requantize does not exist"),
        ("as quantize()", "as pyadamw.functional.requantize", "pyadamw.functional.requantize does not exist"),
        ("Returns:", "Example:\n    adds(1, 2)\n\nReturns:", "an example that cannot be run"),
    ],
)
def test_each_problem_is_found(old, new, problem):
    assert old in GOOD
    assert problem in problems_of_text(GOOD.replace(old, new), ["a", "b"], KNOWN | {"a", "b"})


def test_order_is_looked_at():
    assert problems_of_text(GOOD, ["b", "a"], KNOWN | {"a", "b"}) == ["the arguments are in another order"]


def test_new_names_are_found(monkeypatch):
    """A function without a docstring, a method with a new argument and a new attribute are found where they are new."""

    def added(a):
        pass

    def wait(self, seconds):
        """Waits."""

    monkeypatch.setattr(pyadamw, "added", added, raising=False)
    monkeypatch.setattr(pyadamw, "__all__", [*pyadamw.__all__, "added"])
    monkeypatch.setattr(pyadamw.PageManager, "wait", wait)
    monkeypatch.setattr(pyadamw.PageManager, "color", "red", raising=False)
    old = {item.title for item in EVERYTHING if problems(item)} - {"PageManager.wait"}
    found = with_problems(item for item in everything() if item.title not in old)
    assert found == {
        "pyadamw.added": ["no docstring"],
        "PageManager.wait": ["seconds is not explained"],
        "PageManager.color": ["an attribute that nothing explains"],
    }


def test_wrong_examples_are_found():
    assert "Expected" in run_example("wrong", ">>> 1 + 1\n3\n")
    assert run_example("right", ">>> 1 + 1\n2\n") == ""
