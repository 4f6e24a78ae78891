"""Read Python source files and describe what is in them, as plain Python values.

Nothing is imported or run: the source is parsed with `ast`. A file that cannot be read or parsed
is reported with its reason, never left out silently. This module knows nothing of stores.
"""

from __future__ import annotations

import ast
import os
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Package", "describe", "find_modules", "module_name", "standard_library"]

# Installed packages are not the standard library, and its tests hold more source than all of the
# rest, much of it broken on purpose.
SKIPPED = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "__phello__"}
)

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


class Package:
    """A package and what is known of its modules: an ordinary class, to be stored as it is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.modules: list[str] = []
        self.totals = {"lines": 0, "bytes": 0}
        self.reviewed = False
        self.notes: dict[str, list[str]] = {}

    def add(self, module: str, lines: int, size: int) -> None:
        """Count a module in."""
        self.modules.append(module)
        self.totals["lines"] += lines
        self.totals["bytes"] += size

    def note(self, author: str, text: str) -> None:
        """Keep a remark: an ordinary method that changes a list inside a dict of `self`."""
        self.notes.setdefault(author, []).append(text)

    def __repr__(self) -> str:
        return f"<Package {self.name}: {len(self.modules)} modules, {self.totals['lines']} lines>"


def standard_library() -> Path:
    """Return the directory of the running interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def find_modules(root: Path) -> list[Path]:
    """Return the paths of all modules below `root`, in the order of their names."""
    return sorted(_walk(root), key=lambda path: module_name(root, path))


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name.isidentifier() and name not in SKIPPED]
        for name in files:
            stem, extension = os.path.splitext(name)
            if extension == ".py" and stem.isidentifier():
                yield Path(folder, name)


def module_name(root: Path, path: Path) -> str:
    """Return the dotted name under which the file at `path` is imported.

    >>> module_name(Path("lib"), Path("lib/json/decoder.py"))
    'json.decoder'
    >>> module_name(Path("lib"), Path("lib/json/__init__.py"))
    'json'
    """
    parts = path.relative_to(root).with_suffix("").parts
    if parts[-1] == "__init__" and len(parts) > 1:
        parts = parts[:-1]
    return ".".join(parts)


def describe(root: Path, path: Path) -> dict[str, Any]:
    """Return what is in the module at `path`.

    Raises:
        OSError: the file cannot be read.
        SyntaxError, ValueError, RecursionError: the source cannot be parsed.
    """
    source = path.read_bytes()
    with warnings.catch_warnings():
        # An odd escape in a file that is only looked at is no concern of the one who looks.
        warnings.simplefilter("ignore", SyntaxWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        tree = ast.parse(source, filename=str(path))
    name = module_name(root, path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return {
        "imports": _imports(tree, package),
        "functions": {
            node.name: _function(node) for node in tree.body if isinstance(node, FunctionNode)
        },
        "classes": {
            node.name: _class(node) for node in tree.body if isinstance(node, ast.ClassDef)
        },
        "size": len(source),
        "lines": len(source.splitlines()),
        "doc": ast.get_docstring(tree),
    }


def _imports(tree: ast.Module, package: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(_imported_from(node, package))
    return found


def _imported_from(node: ast.ImportFrom, package: str) -> list[str]:
    if not node.level:
        return [node.module or ""]
    parents = package.split(".")
    base = parents[: len(parents) - node.level + 1]
    if node.module:
        return [".".join([*base, node.module])]
    return [".".join([*base, alias.name]) for alias in node.names]


def _function(node: FunctionNode) -> dict[str, Any]:
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return {
        "line": node.lineno,
        "arguments": [argument.arg for argument in every],
        "doc": ast.get_docstring(node),
    }


def _class(node: ast.ClassDef) -> dict[str, Any]:
    return {
        "line": node.lineno,
        "bases": [ast.unparse(base) for base in node.bases],
        "methods": [item.name for item in node.body if isinstance(item, FunctionNode)],
        "doc": ast.get_docstring(node),
    }
