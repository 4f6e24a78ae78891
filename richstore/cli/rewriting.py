"""The commands that write a store anew: `compact`, `migrate`, `rekey`."""

from __future__ import annotations

import importlib
import secrets
import sys

import click

from richstore.cli.output import say
from richstore.cli.progress import progress
from richstore.cli.target import Target, on_classes, on_store
from richstore.errors import WrongKeyError
from richstore.keyrings import forget_key, keep_key, kept_key, key_in
from richstore.passphrase import Passphrase

__all__ = ["compact", "migrate", "rekey"]

NEW_KEY = "RICHSTORE_NEW_KEY"
NEW_PASSPHRASE = "RICHSTORE_NEW_PASSPHRASE"


@click.command()
@on_store
def compact(target: Target) -> None:
    """Remove at once what is left of deleted values, which later writes would do bit by bit.

    The file does not become smaller: later writes use the space. A smaller file is what
    `backup --compact` makes.
    """
    with progress("Compacting"), target.open("w") as store:
        count = store.compact()
        free = store.stats().pages_free
    say(f"{target.path}: {count:,} records removed, {free or 0:,} pages free")


@click.command()
@click.option(
    "--import",
    "modules",
    multiple=True,
    metavar="MODULE",
    help="Import this module before: the one that calls richstore.renamed. May be given again.",
)
@on_classes
def migrate(modules: tuple[str, ...], target: Target) -> None:
    """Rewrite what has old names or old versions of classes.

    Others may go on reading and writing; when it is interrupted, running it again does the rest.
    """
    if modules:
        # where whoever names it has it
        sys.path.insert(0, "")
    for module in modules:
        if not all(map(str.isidentifier, module.split("."))):
            raise click.UsageError(f"{module!r} is no name of a module, such as shop.models")
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise click.UsageError(f"{module} cannot be imported: {error}") from error
    with progress("Migrating") as bar, target.open("w") as store:
        bar.total = store.stats().records
        count = store.migrate(progress=bar.records)
    say(f"{target.path}: {count:,} records rewritten")


@click.command()
@click.option(
    "--reencrypt",
    is_flag=True,
    help="Write everything anew, so that the old key opens nothing that is left in the file.",
)
@on_store
def rekey(reencrypt: bool, target: Target) -> None:
    """Change the key of an encrypted store.

    The new key is that in the environment variable RICHSTORE_NEW_KEY (64 hexadecimal digits) or
    RICHSTORE_NEW_PASSPHRASE. Else, for a project that has its key in the keyring, a new one is made
    and put there; and on a terminal a passphrase is asked for. Others may go on reading and
    writing meanwhile.
    """
    new = key_in(NEW_KEY, NEW_PASSPHRASE)
    project = target.place.project
    if project is not None and project.key == "keyring":
        _rekey_in_keyring(target, project.name, new, reencrypt)
    else:
        _rekey(target, new or _asked(), reencrypt)
    say(f"{target.path}: the key is changed")


def _rekey(target: Target, new: bytes | Passphrase, reencrypt: bool) -> None:
    with progress("Encrypting") as bar, target.open("w") as store:
        bar.total = store.stats().records
        store.rekey(new, reencrypt=reencrypt, progress=bar.records)


def _rekey_in_keyring(
    target: Target, name: str, new: bytes | Passphrase | None, reencrypt: bool
) -> None:
    """Change the key of a project; at every moment the keyring has the key that the store has."""
    if isinstance(new, Passphrase):
        raise click.UsageError(
            f"the keyring keeps keys and no passphrases: leave {NEW_PASSPHRASE} out"
        )
    spare = f"{name} (new)"
    _finish(target, name, spare)
    key = new or secrets.token_bytes(32)
    keep_key(spare, key)
    _rekey(target, key, reencrypt)
    keep_key(name, key)
    forget_key(spare)


def _finish(target: Target, name: str, spare: str) -> None:
    """End what was interrupted: if the spare key opens the store, it is its key."""
    left = kept_key(spare)
    if left is None:
        return
    try:
        target.open("r").close()
    except WrongKeyError:
        keep_key(name, left)
    forget_key(spare)


def _asked() -> Passphrase:
    """Ask for a passphrase on the terminal."""
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"there is no terminal to ask for the new passphrase: set {NEW_KEY} or {NEW_PASSPHRASE}"
        )
    return Passphrase(click.prompt("New passphrase", hide_input=True, confirmation_prompt=True))
