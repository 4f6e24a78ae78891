"""What a store of the demo contains, and which part of it serves as the example.

A module is a dict under its dotted name, a package an instance of `Package` under
`("package", name)`, and the record under `ABOUT` says that the demo made the file. All lines of all
modules are one large list under `LINES`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import richstore

__all__ = ["ABOUT", "LINES", "Example", "choose_example", "is_demo_store", "package_key"]

ABOUT = ("richstore", "demo")
LINES = ("richstore", "lines")
FAVOURITE = "json"


class Example(NamedTuple):
    """The names of a package, one of its modules and a class in that with methods."""

    package: str
    module: str
    class_name: str


def package_key(name: str) -> tuple[str, str]:
    """Return the key of the package `name`."""
    return ("package", name)


def is_demo_store(path: Path) -> bool:
    """Tell whether the file at `path` was made by the demo, without changing it."""
    if not path.is_file():
        return False
    try:
        with richstore.open(path, "r") as store:
            return ABOUT in store
    except (richstore.RichStoreError, OSError):
        return False


def choose_example(store: richstore.Store) -> Example:
    """Return the example: in the package `json` if it is there, else in the first that has one.

    Raises:
        LookupError: no package has a class with methods.
    """
    for package in sorted(store[ABOUT]["packages"], key=lambda name: (name != FAVOURITE, name)):
        for module in store[package_key(package)].modules:
            for class_name, details in store[module]["classes"].items():
                if details["methods"]:
                    return Example(package, module, class_name)
    raise LookupError("no package in the store has a class with methods")
