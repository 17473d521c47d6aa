"""Owns the settings of the site. ci/docs builds it; pages are Markdown (MyST), Python and C come from their sources."""

import importlib
import importlib.metadata
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "tools"))
choices = importlib.import_module("choices")

project = "pyadamw"
author = "the authors of pyadamw"
copyright = "the authors of pyadamw, MIT licence"
release = version = importlib.metadata.version("pyadamw")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "breathe",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["recipes/README.md", "_generated"]
myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline", "substitution"]
default_role = "code"  # what docstrings write in single backticks
myst_heading_anchors = 3
myst_substitutions = choices.substitutions()
suppress_warnings = []
# C is checked to the last name; what Python's annotations name is mostly torch's.
nitpick_ignore_regex = [("c:identifier", r"u?int\d+_t|size_t|adamw_pager"), (r"py:\w+", ".*")]

# ---- Python ----
autodoc_default_options = {"members": True, "show-inheritance": False}
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signatures have them, and Args explains
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_mock_imports = ["transformers"]  # documented without being installed
python_use_unqualified_type_names = True


def shorten(app, what, name, thing, options, lines):
    """The classes differ in the width of their state and in paging: one of them has the formula and the arguments."""
    begin = next((number for number, line in enumerate(lines) if line.startswith("For each element")), None)
    if what == "class" and begin is not None and name != "pyadamw.AdamW8bit":
        lines[begin:] = ["The formula, the arguments and the errors are those of :class:`pyadamw.AdamW8bit`.", ""]


def setup(app):
    app.connect("autodoc-process-docstring", shorten)


# ---- C ----
breathe_projects = {"adamw": str(HERE.parent / "build" / "docs" / "doxygen" / "xml")}
breathe_default_project = "adamw"
breathe_domain_by_extension = {"h": "c"}
c_id_attributes = ["ADAMW_API"]

# ---- the face ----
html_theme = "furo"
html_title = f"pyadamw {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
highlight_language = "none"  # of what names no language
pygments_style = "friendly"
pygments_dark_style = "monokai"
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
