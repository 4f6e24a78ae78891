"""How the documentation is built: `sphinx-build -W docs docs/_build/html`."""

import re
from importlib.metadata import version as version_of
from typing import Any

from sphinx.application import Sphinx

project = "richstore"
author = "The richstore authors"
copyright = author
version = release = version_of("richstore")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "groupwise"
autodoc_typehints = "description"
# else the types in it would be looked for, and `bytes` is the name of fields of ours as well
autodoc_type_aliases = {"KeySource": "KeySource"}
autodoc_typehints_description_target = "documented_params"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

# A reference to a public name that leads nowhere is an error. References to Python and other
# packages are not looked up, so that the build needs no network; a type in a signature that is not
# public (`richstore.block.Block`) has no page.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!richstore\b).*"), (r"py:.*", r"richstore\.[a-z]+\..*")]

html_theme = "furo"
html_title = f"richstore {release}"


def code_in_single_backticks(
    app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]
) -> None:
    """Turn the `code` of docstrings, written as in the Markdown pages, into ``code``."""
    lines[:] = [re.sub(r"(?<![`:\w])`([^`]+)`(?![`_])", r"``\1``", line) for line in lines]


def setup(app: Sphinx) -> None:
    """Run before napoleon, which would read a colon inside code as the end of a type."""
    app.connect("autodoc-process-docstring", code_in_single_backticks, priority=100)
