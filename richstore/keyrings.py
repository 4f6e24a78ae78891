"""Keys of stores, from the environment and from the keyring of the user; never from a file of ours.

They are not arguments of commands either, since other users of the machine see these.
"""

from __future__ import annotations

import os
from typing import Any

from richstore.errors import ProjectError, WrongKeyError
from richstore.passphrase import Passphrase

__all__ = [
    "KEY",
    "PASSPHRASE",
    "environment_key",
    "forget_key",
    "keep_key",
    "kept_key",
    "key_in",
    "project_key",
]

# Environment variables: a key as 64 hexadecimal digits, or a passphrase.
KEY = "RICHSTORE_KEY"
PASSPHRASE = "RICHSTORE_PASSPHRASE"

# Under which the keyring has keys, by the names of projects.
SERVICE = "richstore"


def environment_key() -> bytes | Passphrase | None:
    """Return the key that the environment gives, or None.

    Raises:
        WrongKeyError: it is not hexadecimal.
    """
    return key_in(KEY, PASSPHRASE)


def key_in(key: str, passphrase: str) -> bytes | Passphrase | None:
    """Return the key that one of two environment variables has, or None.

    Raises:
        WrongKeyError: it is not hexadecimal.
    """
    # an empty one too: a secret that was left out by mistake must not mean no encryption
    if key in os.environ:
        return _from_hex(os.environ[key], key)
    if passphrase in os.environ:
        if not os.environ[passphrase]:
            raise WrongKeyError(f"{passphrase} is empty")
        return Passphrase(os.environ[passphrase])
    return None


def project_key(name: str, source: str) -> bytes:
    """Return the key of a project that the environment does not give.

    Args:
        name: the name of the project.
        source: where it is: `"keyring"`, or `"environment"`, where it is not.

    Raises:
        ProjectError: it is not there.
        WrongKeyError: it is not hexadecimal.
    """
    if source == "environment":
        raise ProjectError(
            f"the store of the project {name} is encrypted: set {KEY} (64 hexadecimal digits) or "
            f"{PASSPHRASE}"
        )
    kept = kept_key(name)
    if kept is None:
        raise ProjectError(
            f"the store of the project {name} is encrypted, and its key is not in the keyring of "
            f"this user: `keyring set {SERVICE} {name}` asks for it, or set {KEY}"
        )
    return kept


def kept_key(name: str) -> bytes | None:
    """Return the key that the keyring has under a name, or None.

    Raises:
        ProjectError: there is no keyring, or it cannot be used.
        WrongKeyError: it is not hexadecimal.
    """
    text = _keyring("get_password", name)
    return None if text is None else _from_hex(text, f"the keyring's entry {SERVICE} {name}")


def keep_key(name: str, key: bytes) -> None:
    """Put a key into the keyring.

    Raises:
        ProjectError: there is no keyring, or it cannot be used.
    """
    _keyring("set_password", name, key.hex())


def forget_key(name: str) -> None:
    """Remove a key from the keyring.

    Raises:
        ProjectError: there is no keyring, or it cannot be used.
    """
    _keyring("delete_password", name)


def _keyring(action: str, name: str, *arguments: str) -> Any:
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        raise ProjectError(
            f"the key of the project {name} is in the keyring, which the package keyring reads: "
            f"pip install 'richstore[keyring]', or set {KEY}"
        ) from None
    try:
        return getattr(keyring, action)(SERVICE, name, *arguments)
    except (KeyringError, RuntimeError) as error:
        raise ProjectError(f"the keyring cannot be used: {error}; {KEY} goes before it") from error


def _from_hex(text: str, place: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != 32:
        raise WrongKeyError(f"{place} must have 64 hexadecimal digits")
    return found
