"""Owns the laws of releasing: a version that is not the same everywhere, or not written up, is not released."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHANGELOG = "# Changelog\n\n## 9.8.7 (2030-01-02)\n\n- All.\n\n### ABI\nNothing.\n\n### Numerics\nNothing.\n"


@pytest.fixture
def tree(tmp_path):
    """A clean repository of what a release looks at, with version 9.8.7."""
    for name in ("include/adamw.h", "recipe/recipe.yaml"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(ROOT / name, tmp_path / name)
    edit(tmp_path / "include/adamw.h", "MAJOR 1", "MAJOR 9", "MINOR 0", "MINOR 8", "PATCH 0", "PATCH 7")
    edit(tmp_path / "recipe/recipe.yaml", "  version: 1.0.0", "  version: 9.8.7")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    return tmp_path


def edit(path, *replacements):
    text = path.read_text()
    for old, new in zip(replacements[::2], replacements[1::2], strict=True):
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)


def git(tree, *arguments):
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments], cwd=tree, check=True)


def commit(tree):
    git(tree, "add", "-A")
    git(tree, "commit", "-q", "--allow-empty", "-m", "x")


def said(tree, version="9.8.7"):
    command = [sys.executable, ROOT / "ci" / "release_checks.py", version, tree]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == bool(done.stderr), done.stderr
    return done.stderr


def test_a_tree_that_is_ready(tree):
    """One version everywhere, a dated entry with both headings, nothing uncommitted: nothing is said."""
    assert said(tree) == ""


@pytest.mark.parametrize(
    "name, old, new, expected",
    (
        ("include/adamw.h", "PATCH 7", "PATCH 8", "include/adamw.h has version 9.8.8: must be 9.8.7"),
        ("recipe/recipe.yaml", "9.8.7", "9.8.6", "recipe/recipe.yaml has version 9.8.6: must be 9.8.7"),
        ("CHANGELOG.md", "## 9.8.7", "## 9.8.70", "has no heading '## 9.8.7'"),
        ("CHANGELOG.md", "(2030-01-02)", "(unreleased)", "must end with the date of the release"),
        ("CHANGELOG.md", "### ABI", "### API", "has no '### ABI'"),
        ("CHANGELOG.md", "### Numerics\nNothing.", "### Numerics", "or nothing below it"),
    ),
)
def test_what_stops_a_release(tree, name, old, new, expected):
    """Each of these is found and named."""
    edit(tree / name, old, new)
    commit(tree)
    assert expected in said(tree)


def test_uncommitted_changes_stop_a_release(tree):
    """Whether a file was changed or is new."""
    (tree / "new file").write_text("")
    assert "not committed: " in said(tree)


def test_a_tag_on_another_commit_stops_a_release(tree):
    """The tag of the version may be there already, on this commit only."""
    git(tree, "tag", "v9.8.7")
    assert said(tree) == ""
    commit(tree)
    assert "the tag v9.8.7 is there already" in said(tree)


def test_a_version_is_three_numbers(tree):
    """Anything else is refused."""
    for version in ("9.8", "v9.8.7", "9.8.7rc1", ""):
        assert "must be MAJOR.MINOR.PATCH" in said(tree, version)
