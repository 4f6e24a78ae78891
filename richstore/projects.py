"""Projects: where `richstore.open()` without a target finds the store, and its key.

A project is a folder with a `richstore.toml`, or with `[tool.richstore]` in its `pyproject.toml`:

```toml
[tool.richstore]
project-name = "shop"    # the name of [project] if it is left out
store = "data/shop.db"   # relative to the folder; the platform's data folder if it is left out
key = "keyring"          # or "environment"; the store has no key if it is left out
```

The key itself is never in the folder.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from richstore.errors import ProjectError
from richstore.keyrings import environment_key, project_key
from richstore.passphrase import Passphrase

__all__ = [
    "OWN_FILE",
    "SHARED_FILE",
    "STORE",
    "TABLE",
    "Place",
    "Project",
    "default_store",
    "find_project",
    "project_name",
    "project_place",
    "read_table",
    "store_path",
]

# The environment variable that names a store, whatever the project says.
STORE = "RICHSTORE_STORE"

OWN_FILE = "richstore.toml"
SHARED_FILE = "pyproject.toml"
TABLE = "tool.richstore"

_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
_KEYS_FROM = ("keyring", "environment")


@dataclass(frozen=True)
class Project:
    """A project as its configuration describes it.

    Attributes:
        name: under which data and key are kept.
        file: the configuration.
        store: the file of the store.
        key: where the key comes from: `"keyring"`, `"environment"`, or None: there is none.
    """

    name: str
    file: Path
    store: Path
    key: str | None


@dataclass(frozen=True)
class Place:
    """Where a store is, and of which project it is.

    Attributes:
        path: the file.
        project: the one whose key it has; None: there is none.
    """

    path: str
    project: Project | None = None

    def key(self) -> bytes | Passphrase | None:
        """Return the key: that of the environment, else that of the project; or None.

        Raises:
            ProjectError: there should be one, and it is not there.
            WrongKeyError: it is not hexadecimal.
        """
        found = environment_key()
        if found is not None or self.project is None or self.project.key is None:
            return found
        return project_key(self.project.name, self.project.key)

    def prepare(self, flag: str) -> None:
        """Make the folder of a project's data, where a store may be made: with `flag` c or n."""
        is_its_own = self.project is not None and self.path == os.fspath(self.project.store)
        if is_its_own and flag in ("c", "n"):
            Path(self.path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)


def project_place(*starts: Path) -> Place:
    """Return the store that is meant where none is named.

    Args:
        starts: as for `find_project`.

    Raises:
        ProjectError: there is no project, or its configuration is not right.
    """
    path = os.environ.get(STORE)
    project = find_project(*starts)
    if path:
        return Place(path, project)
    if project is not None:
        return Place(os.fspath(project.store), project)
    raise ProjectError(
        f"no store is named, and there is no project in {Path.cwd()} or the folders above it: give "
        f"a path, set {STORE}, or run `richstore init` in the folder of the project"
    )


def find_project(*starts: Path) -> Project | None:
    """Return the project of the nearest folder that has one, or None.

    Args:
        starts: folders; from each the search goes up. By default the working directory, and then
            that of the program that runs.

    Raises:
        ProjectError: a configuration was found and is not right.
    """
    for start in starts or _usual_starts():
        for folder in (start, *start.parents):
            found = _project_in(folder)
            if found is not None:
                return found
    return None


def _usual_starts() -> Iterator[Path]:
    yield Path.cwd()
    program = getattr(sys.modules.get("__main__"), "__file__", None)
    if program:
        yield Path(program).resolve().parent


def _project_in(folder: Path) -> Project | None:
    for name in (OWN_FILE, SHARED_FILE):
        file = folder / name
        content = read_table(file)
        if content is None:
            continue
        table = content if name == OWN_FILE else _entry(content, "tool", "richstore")
        if table is not None:
            return _project(file, table, content)
    return None


def read_table(file: Path) -> dict[str, Any] | None:
    """Return what a file of TOML has; None: there is no such file.

    Raises:
        ProjectError: it is no TOML, or somebody else's file.
    """
    try:
        with file.open("rb") as opened:
            owner = os.fstat(opened.fileno()).st_uid
            content = tomllib.load(opened)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProjectError(f"{file} is no TOML: {error}") from error
    # whoever can leave a file above ours could choose where our data goes
    if owner not in (os.geteuid(), 0) and _concerns_us(file, content):
        raise ProjectError(
            f"{file} belongs to another user, who could choose where your data goes; give a path "
            f"or set {STORE}"
        )
    return content


def _concerns_us(file: Path, content: dict[str, Any]) -> bool:
    return file.name == OWN_FILE or _entry(content, "tool", "richstore") is not None


def _entry(content: dict[str, Any], table: str, name: str) -> Any:
    """Return what a table of a configuration has under a name; None: nothing."""
    found = content.get(table)
    return found.get(name) if isinstance(found, dict) else None


def _project(file: Path, table: Any, content: dict[str, Any]) -> Project:
    """Return the project of a table of the configuration, checked."""
    if not isinstance(table, dict):
        raise ProjectError(f"{file}: {TABLE} must be a table")
    known = ("project-name", "store", "key")
    for name, value in table.items():
        if name not in known:
            raise ProjectError(f"{file}: {name!r} is none of {', '.join(known)}")
        if not isinstance(value, str) or not value:
            raise ProjectError(f"{file}: {name} must be a text, not {value!r}")
    key = table.get("key")
    if key is not None and key not in _KEYS_FROM:
        # which may well be one: it is not shown
        raise ProjectError(
            f'{file}: key must be "keyring" or "environment"; the key itself is never in this file'
        )
    name = project_name(table.get("project-name") or _entry(content, "project", "name"), file)
    store = store_path(table["store"], file) if "store" in table else default_store(name)
    return Project(name, file, store, key)


def store_path(text: str, file: Path) -> Path:
    """Return the file that a configuration means by `store`.

    Raises:
        ProjectError: it can be none.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise ProjectError(f"{file}: store is {text!r}, and there is no such user") from error
    if "\0" in text:
        raise ProjectError(f"{file}: store is {text!r}, which cannot be the name of a file")
    return file.parent / path


def project_name(name: Any, file: Path) -> str:
    """Return the name of a project, if it can be one.

    Raises:
        ProjectError: it cannot: it is to be the name of a folder.
    """
    if name is None:
        raise ProjectError(f"{file}: project-name is missing")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ProjectError(
            f"{file}: {name!r} cannot be the name of a project: it has letters, digits and ._- and "
            f"begins with a letter or digit"
        )
    return name


def default_store(name: str) -> Path:
    """Return where the platform keeps data of programs for this user.

    Raises:
        ProjectError: platformdirs, which knows it, is not installed.
    """
    try:
        from platformdirs import user_data_path
    except ImportError:
        raise ProjectError(
            f"the project {name} keeps its store in the platform's data folder, which the package "
            f"platformdirs knows: pip install 'richstore[projects]', or name a file in "
            f'[{TABLE}]: store = "…", or set {STORE}'
        ) from None
    folder: Path = user_data_path("richstore", appauthor=False)
    return folder / name / "store.db"
