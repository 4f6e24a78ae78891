"""How the documentation is built: `sphinx-build -W docs docs/_build/html`."""

from importlib.metadata import version as version_of

project = "richstore"
author = "The richstore authors"
copyright = author
version = release = version_of("richstore")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Docstrings write `code` in single backticks, as the Markdown pages do.
default_role = "code"
autodoc_member_order = "groupwise"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

# A reference into richstore that leads nowhere is an error. References to Python and other
# packages are not looked up, so that the build needs no network.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!richstore\b).*")]

html_theme = "furo"
html_title = f"richstore {release}"
