"""Owns the law that the names exist which README, the pages of docs, CHANGELOG, CONTRIBUTING and the header write in
backticks or with (). Must not know what the names mean.
"""

import ast
import inspect
import re
from pathlib import Path

import pages
import pytest

import pyadamw

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("include", "libadamw", "pyadamw", "tests", "ci", "recipe")  # of which a path may be the end
MADE = (".venv", "build", "dist", ".in")  # commands make these; the last is a suffix
# Commands and messages of other programs, in which only our variables are checked; packages of others; names of C, C++,
# Python, torch and the peers, and variables of the examples.
FOREIGN_TEXTS = ("cmake ", "conda ", "find_package", "mypy ", "pip ", "pkg-config ", "PYTHON=", "Missing key ")
FOREIGN_PACKAGES = ("torch.", "bitsandbytes.", "accelerator.", "scaler.")
FOREIGN = """
    atexit calloc deepcopy fork pow power std vector True False ValueError backward is_neg parameters DataLoader Trainer
    FullyShardedDataParallel StateDictOptions ZeroRedundancyOptimizer broadcast_from_rank0 full_state_dict fully_shard
    create_loraplus_optimizer loraplus_lr_ratio get_optimizer_cls_and_kwargs foreach fused
    hf manager model optimizer options params _init _options_init _INIT
    CPUOffloadOptimizer TrainingArguments bf16_stochastic_round map_location mmap inf import
    accelerator prepare scaler unscale_ clip_grad_norm_ configure_optimizers config.json config json --optimizer_type
    --optimizer_args optimizers PYTHON_GIL
"""

GONE = {"CHANGELOG.md": {"codebook"}}  # what a text names because it is no longer there


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


def everywhere(pattern, *suffixes):
    """What matches in the sources of the library, the package and their build."""
    files = [path for folder in ("libadamw", "pyadamw") for path in (ROOT / folder).rglob("*")]
    texts = [path.read_text(encoding="utf-8") for path in files if path.suffix in suffixes]
    texts += [read("CMakeLists.txt"), read("pyproject.toml")]
    return {match for text in texts for match in re.findall(pattern, text)}


def attributes(thing):
    """The public names of a module or class, of its classes, and of the parameters of what can be called."""
    for name, value in inspect.getmembers(thing):
        if not name.startswith("_") or name == "__init__":
            yield name
            if inspect.isclass(value) and value.__module__.startswith("pyadamw"):
                yield from attributes(value)
            if inspect.isroutine(value) and getattr(value, "__module__", None) and "pyadamw" in value.__module__:
                yield from inspect.signature(value).parameters


def nodes(path, *kinds):
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, kinds)]


HEADERS = ("include/adamw.h", "libadamw/python/adamw_python.h")
HEADER = re.sub(r"/\*.*?\*/", "", "".join(map(read, HEADERS)), flags=re.S)
# Keys, values and commands are strings of the package.
STRINGS = {node.value for path in (ROOT / "pyadamw").rglob("*.py") for node in nodes(path, ast.Constant)}
# To import this module would take long.
TRAINER = nodes(ROOT / "pyadamw" / "integrations" / "transformers.py", ast.FunctionDef, ast.arg)
VARIABLE = r"(?:(?<=-D)|\b)(?:PY)?ADAMW_[A-Z_]+\b"
VARIABLES = everywhere(VARIABLE, ".py", ".h", ".cpp", ".cmake")
NAMES = {"pyadamw", "libadamw", "integrations", "transformers", *attributes(pyadamw), *re.findall(r"\w+", HEADER)}
NAMES |= {getattr(node, "arg", None) or node.name for node in TRAINER} | VARIABLES | set(FOREIGN.split())
NAMES |= set(re.findall(r"add_library\((\w+)", read("CMakeLists.txt")))
INNER = everywhere(r"\w+", ".h", ".cpp", ".map")  # what those see who change the library
TARGETS = set(re.search(r"\.PHONY: (.*)", read("Makefile"))[1].split())


def is_file(path):
    """Whether the repository has such a file or folder. NAME stands for any name."""
    pattern = path.strip("/").replace("NAME", "*")
    inside = (any((ROOT / folder).glob(f"**/{pattern}")) for folder in FOLDERS)
    return path.startswith(MADE) or any(ROOT.glob(pattern)) or any(inside)


def missing(text, inner=False):
    """The names in a text in backticks that nothing else has."""
    if text.startswith(FOREIGN_TEXTS) or ("ADAMW_" in text and re.search(r"-D|=", text)):
        return set(re.findall(VARIABLE, text)) - VARIABLES
    if re.fullmatch(r"adamw_\w+\(\)", text):  # a function, where the name of a struct would not do
        return set() if text[:-1] in HEADER else {text}
    if text.startswith("make "):
        return {text.split()[1]} - TARGETS
    if re.match(r"[\w.*-]*/|\.\w|[\w*]+\.(py|h|c|cpp|txt|md|typed)\b", text):
        return {path for path in text.split()[:1] if not is_file(path)}
    command = re.match(r"python -m pyadamw (\w+)(.*)|()(.*)", text)
    strings = {a or b for a, b in re.findall(r'"(\w+)"|(--\w+)', text)} | {command[1] or "demo"}
    words = re.findall(r"(?<!\w)[A-Za-z_][\w.]*", re.sub(r'"\w+"|--\w+', "", command[4] or ""))
    parts = {word: word.rstrip(".").split(".") for word in words if not word.startswith(FOREIGN_PACKAGES)}
    known = NAMES | STRINGS | (INNER if inner else set())
    return (strings - STRINGS - set(FOREIGN.split())) | {word for word in parts if not known.issuperset(parts[word])}


def names_in(text):
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    called = re.findall(r"(?<![\w.`-])[A-Za-z_][\w.]*\(\)", text)
    return set(re.findall(r"`([^`\n]+)`", text)) | set(called)


# Not the page of errors: test_docs.py compares what it quotes, which is sentences.
PAGES = [name for name in pages.all_pages() if not name.endswith("errors.md")]


@pytest.mark.parametrize("file", [*PAGES, "CHANGELOG.md", "CONTRIBUTING.md", "include/adamw.h"])
def test_names_exist(file):
    """What a text names is a file, a command, or a name in the header, the package, or a short list of foreign ones."""
    text = read(file)
    text = re.split(r"^## ", text, flags=re.M)[1] if file == "CHANGELOG.md" else text  # the latest version
    found = names_in(text)
    assert len(found) > 20 or file in PAGES
    unknown = {name for snippet in found for name in missing(snippet, file == "CONTRIBUTING.md")}
    assert unknown == GONE.get(file, set())


MADE_UP = """
    adamw_state_size() adamw_state_layout() adamw_tensor.tables PYADAMW_LIB pyadamw.Adam8bit optimizer.report()
    PageManager("disk") PageManager(sheets=3) libadamw/no.h ci/no -DADAMW_ROCM=1
"""


@pytest.mark.parametrize("name", [*MADE_UP.split(), "make all", "python -m pyadamw train"])
def test_made_up_names_are_missing(name):
    """The test above can fail: of each kind, a name that nothing has."""
    assert missing(name)
