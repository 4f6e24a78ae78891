"""The command `init`: make the folder it is run in a project."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import click

import richstore
from richstore.cli.failures import Failure
from richstore.cli.output import say
from richstore.errors import ProjectError
from richstore.keyrings import KEY, environment_key, forget_key, keep_key, kept_key, project_key
from richstore.passphrase import Passphrase
from richstore.projects import (
    OWN_FILE,
    SHARED_FILE,
    TABLE,
    Place,
    Project,
    default_store,
    project_name,
    read_table,
    store_path,
)

__all__ = ["init"]


@click.command()
@click.option("--project-name", metavar="NAME", help="The name; else that in pyproject.toml.")
@click.option(
    "--store",
    metavar="FILE",
    help="Where the store is to be, from the folder of the project; else in the platform's data"
    " folder.",
)
@click.option(
    "--encrypt",
    is_flag=True,
    help="Encrypt the store. The key goes into the keyring; without one it is printed, once.",
)
@click.option(
    "--existing",
    is_flag=True,
    help="Use a store that is there already; with --encrypt, one that has a key already.",
)
def init(project_name: str | None, store: str | None, encrypt: bool, existing: bool) -> None:
    """Make this folder a project, whose store richstore.open() and all commands find.

    It writes [tool.richstore] into the pyproject.toml of the folder, or else a richstore.toml, and
    makes the store. The key is never in the folder: it comes from the keyring, or from the
    environment variable RICHSTORE_KEY.
    """
    project = _new_project(Path.cwd(), project_name, store)
    if project.store.exists() and not existing:
        raise Failure(
            f"{project.store} exists already: it may be another project of the name "
            f"{project.name}. Choose another --project-name or --store, or take it with --existing"
        )
    if not os.access(project.file.parent, os.W_OK):
        raise Failure(f"{project.file.parent} cannot be written to")
    key, source = _key(project.name, existing) if encrypt else (None, None)
    entries = {"project-name": project.name, "store": store, "key": source}
    text = _table(project.file, {name: one for name, one in entries.items() if one is not None})
    try:
        place = Place(os.fspath(project.store), project)
        place.prepare("c")
        richstore.open(place.path, "w" if existing else "c", key=key).close()
        _append(project.file, text)
    except BaseException:
        if source == "keyring" and not existing:
            forget_key(project.name)
        raise
    say(f"{project.file}: the project {project.name}")
    say(f"{project.store}: its store")
    if source == "keyring":
        say(f"The key is in the keyring, as richstore {project.name}.")
    elif isinstance(key, bytes) and environment_key() is None:
        say("No keyring was found. Keep this key where the store is not, and set it before using")
        say("the store; it is shown once, and nobody can open the store without it:")
        say(f"export {KEY}={key.hex()}")


def _new_project(folder: Path, name: str | None, store: str | None) -> Project:
    """Return the project that a folder is to be.

    Raises:
        Failure: it is one already.
        ProjectError: the name cannot be one.
    """
    shared = folder / SHARED_FILE
    content = read_table(shared)
    file = folder / OWN_FILE if content is None else shared
    is_one = "richstore" in _table_of(content, "tool")
    if is_one or (folder / OWN_FILE).exists():
        raise Failure(f"{shared if is_one else folder / OWN_FILE} is that of a project already")
    if name is None:
        name = _table_of(content, "project").get("name") or folder.name
    try:
        name = project_name(name, file)
    except ProjectError as error:
        raise click.UsageError(f"{error}; give another with --project-name") from None
    path = default_store(name) if store is None else store_path(store, file)
    return Project(name, file, path, None)


def _table_of(content: dict[str, Any] | None, name: str) -> dict[str, Any]:
    found = (content or {}).get(name)
    return found if isinstance(found, dict) else {}


def _key(name: str, existing: bool) -> tuple[bytes | Passphrase, str]:
    """Return the key of a store, a new one for a new store, and where it is to come from.

    Raises:
        Failure: the keyring has a key of that name already, which must not be lost.
        ProjectError: the key of a store that exists is nowhere.
    """
    given = environment_key()
    if given is not None:
        return given, "environment"
    if existing:
        return project_key(name, "keyring"), "keyring"
    key = secrets.token_bytes(32)
    try:
        if kept_key(name) is not None:
            raise Failure(
                f"the keyring has a key of a project {name} already; choose another --project-name"
            )
        keep_key(name, key)
    except ProjectError:
        # there is no keyring
        return key, "environment"
    return key, "keyring"


def _table(file: Path, entries: dict[str, str]) -> str:
    """Return the lines that are to be appended to a file.

    Raises:
        Failure: the file cannot be extended so.
    """
    lines = [f"{name} = {_quoted(text)}\n" for name, text in entries.items()]
    if file.name == OWN_FILE:
        return "".join(lines)
    made = f"\n[{TABLE}]\n{''.join(lines)}"
    try:
        tomllib.loads(file.read_text(encoding="utf-8") + "\n" + made)
    except tomllib.TOMLDecodeError as error:
        raise Failure(f"[{TABLE}] cannot be appended to {file}: {error}") from None
    return made


def _quoted(text: str) -> str:
    """Return a text as TOML writes it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    shown = (one if one.isprintable() else f"\\U{ord(one):08x}" for one in escaped)
    return f'"{"".join(shown)}"'


def _append(file: Path, text: str) -> None:
    """Append to a file in one step, with the ends of lines that it has; or make it."""
    if not file.exists():
        with file.open("x", encoding="utf-8") as made:
            made.write(text)
        return
    # the file itself, where there is a link to it
    file = Path(os.path.realpath(file))
    before = file.read_bytes()
    end = b"\r\n" if b"\r\n" in before else b"\n"
    if before and not before.endswith(b"\n"):
        before += end
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=file.name, delete=False) as new:
        try:
            new.write(before + text.encode().replace(b"\n", end))
            new.flush()
            os.fsync(new.fileno())
            shutil.copymode(file, new.name)
            os.replace(new.name, file)
        except BaseException:
            os.unlink(new.name)
            raise
