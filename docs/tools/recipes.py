"""Owns the page of recipes: each script of docs/recipes with its title, in an order. Must not know what a recipe does.

What a recipe shows, what it needs and how it is run are the first sentences of its file. A file without a title is an
error.
"""

import ast
import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "recipes"

TITLES = {
    "plain_torch.py": "Plain torch",
    "mixed_precision.py": "Mixed precision and GradScaler",
    "step_in_backward.py": "Stepping in backward",
    "out_of_memory.py": "Out of memory",
    "cuda_graphs.py": "CUDA graphs",
    "compile.py": "torch.compile",
    "transformers_trainer.py": "Hugging Face Trainer",
    "transformers_names.py": "Trainer's names for bitsandbytes",
    "trl_style.py": "A Trainer in the style of TRL",
    "accelerate_fsdp2.py": "accelerate with FSDP2",
    "lightning_module.py": "Lightning",
    "fsdp2_dcp.py": "FSDP2",
    "torchtitan_checkpoints.py": "Checkpoints in the style of torchtitan",
    "kohya_class_path.py": "kohya's sd-scripts",
    "train.c": "C",
    "train.cpp": "C++",
    "CMakeLists.txt": "CMake",
}
LANGUAGES = {".py": "python", ".c": "c", ".cpp": "cpp", ".txt": "cmake"}


def opening(path):
    """The paragraphs of the comment that a file begins with."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        words = ast.get_docstring(ast.parse(text)) or ""
    elif path.suffix == ".txt":
        words = re.sub(r"^# ?", "", re.match(r"(?:#.*\n)+", text)[0], flags=re.MULTILINE)
    else:
        found = re.match(r"/\*(.*?)\*/|((?://.*\n)+)", text, flags=re.DOTALL)
        words = re.sub(r"^ ?(?:\*|//) ?", "", found[1] or found[2], flags=re.MULTILINE)
    return [" ".join(part.split()) for part in words.strip().split("\n\n")]


def section(name):
    """The heading, sentences, commands and text of one recipe."""
    made = [f"## {TITLES[name]}", ""]
    for paragraph in opening(FOLDER / name):
        commands = re.split(r"(?:^|(?<=\.) )(?=(?:Install|Run|With [\w-]+|Build): )", paragraph)
        for words in commands:
            label, found, command = words.partition(": ")
            if found and re.fullmatch(r"(Install|Run|Build|With [\w-]+)", label):
                made.append(
                    f"- {label}: `{command.strip().rstrip('.')}`" if label != "Install" else f"- {words.strip()}"
                )
            else:
                made += [words.strip(), ""]
    language = LANGUAGES[Path(name).suffix]
    return [*made, "", f"```{{literalinclude}} recipes/{name}", f":language: {language}", "```", ""]


def page():
    """All recipes, in the order of TITLES."""
    files = {path.name for path in FOLDER.iterdir() if path.is_file()}
    if files != set(TITLES):
        raise SystemExit(f"error: docs/tools/recipes.py and docs/recipes differ in {sorted(files ^ set(TITLES))}")
    return "\n".join(line for name in TITLES for line in section(name))
