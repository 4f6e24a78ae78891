"""Documents in object stores: S3 and its kin, by obstore.

There are no locks there. A write is conditional on the version that was read (`If-Match`), or on
there being nothing (`If-None-Match`), so who comes second is refused. Each write carries a number
of its own, as metadata: when its answer is lost, or it was sent twice by a retry and refused the
second time, reading back tells whether it was ours that is there.

The rule: nothing of what the user gave as options is ever part of a message.
"""

from __future__ import annotations

import importlib
import secrets
from typing import Any
from urllib.parse import urlsplit

from richstore.errors import ConflictError

__all__ = ["ObjectPlace"]

_MARK = "richstore-commit"
# `memory://name/…` is one store for the process, as a path is one file
_memories: dict[str, Any] = {}


class ObjectPlace:
    """One object.

    Args:
        url: where it is, as obstore takes it; the last parts of its path are the object's key.
        options: keys, region, endpoint and the like, as obstore takes them.
    """

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        parts = urlsplit(url)
        self.location = parts._replace(netloc=parts.hostname or "", query="", fragment="").geturl()
        if parts.username or parts.password or parts.query:
            raise ValueError(
                f"give keys and other options of {self.location} as arguments, not in the URL"
            )
        key = parts.path.lstrip("/")
        if not key or key.endswith("/"):
            raise ValueError(f"{self.location} names no object; add its key to the URL")
        self.name = key.rpartition("/")[2]
        self._key = key
        self._obstore = _obstore()
        errors = self._obstore.exceptions
        self._not_found = (errors.NotFoundError, FileNotFoundError)
        # obstore raises some of Python's own as well
        self._errors = (errors.BaseError, OSError)
        self._refused = (errors.PreconditionError, errors.AlreadyExistsError)
        self._store = self._open(parts.scheme, parts.netloc, dict(options))

    def _open(self, scheme: str, netloc: str, options: dict[str, Any]) -> Any:
        store = importlib.import_module("obstore.store")
        if scheme == "memory":
            return _memories.setdefault(netloc, store.MemoryStore())
        if str(options.get("endpoint", "")).startswith("http://"):
            client = dict(options.get("client_options") or {})
            options["client_options"] = {"allow_http": True, **client}
        if scheme == "az":
            # az://account/container/key
            container, _, self._key = self._key.partition("/")
            netloc = f"{netloc}/{container}"
        try:
            return store.from_url(f"{scheme}://{netloc}", **options)
        except (self._obstore.exceptions.BaseError, TypeError) as error:
            # its text may have the options in it
            raise ValueError(
                f"the options for {self.location} are not understood: {', '.join(sorted(options))} "
                f"({type(error).__name__})"
            ) from None

    def read(self) -> tuple[bytes | None, Any]:
        """Return the content and its version, by one GET; None for both when there is none."""
        found = self._get()
        return (None, None) if found is None else found[:2]

    def _get(self) -> tuple[bytes, dict[str, Any], str | None] | None:
        try:
            found = self._obstore.get(self._store, self._key)
            data = bytes(found.bytes())
        except self._not_found as error:
            if "NoSuchBucket" in str(error):
                raise FileNotFoundError(
                    f"the bucket of {self.location} does not exist; make it, or correct the name"
                ) from None
            return None
        except self._errors as error:
            raise self._error("read", error) from None
        meta = found.meta
        version = {name: meta.get(name) for name in ("e_tag", "version")}
        return data, _known(version), found.attributes.get(_MARK)

    def is_current(self, version: object) -> bool:
        """Return True: the condition of the next write tells better."""
        return True

    def write(self, data: bytes, version: Any) -> dict[str, Any]:
        """Replace the object if it is still of a version, by one PUT.

        Raises:
            ConflictError: it is of another version.
            OSError: it could not be written, or nobody can tell whether it was.
        """
        mark = secrets.token_hex(16)
        mode: Any = "create" if version is None else version
        try:
            made = self._obstore.put(
                self._store, self._key, data, mode=mode, attributes={_MARK: mark}
            )
        except self._errors as error:
            if self._is_certain(error):
                raise self._error("write", error) from None
            return self._outcome(mark, version, error)
        return _known(dict(made))

    def _is_certain(self, error: Exception) -> bool:
        """Tell whether nothing can have been written."""
        errors = self._obstore.exceptions
        certain = (
            errors.PermissionDeniedError,
            errors.UnauthenticatedError,
            errors.NotSupportedError,
            errors.InvalidPathError,
        )
        return isinstance(error, certain)

    def _outcome(self, mark: str, version: Any, error: Exception) -> dict[str, Any]:
        """Find out whether a write was done whose answer says no, or is missing."""
        found = self._get()
        if found is not None and found[2] == mark:
            return found[1]
        gone = found is None and isinstance(error, self._not_found)
        if gone or isinstance(error, self._refused):
            raise ConflictError(
                f"{self.location} was changed by somebody else since it was read"
            ) from None
        now = None if found is None else found[1]
        if now == version:
            # it has not been written: what was there is there
            raise self._error("write", error) from None
        raise OSError(
            f"{self.location} was changed by somebody else while a write was answered by an error "
            f"({type(error).__name__}), so nobody can tell whether that change has this one in it; "
            f"reload() and look"
        ) from None

    def delete(self) -> None:
        """Remove the object."""
        try:
            self._obstore.delete(self._store, self._key)
        except self._not_found:
            pass
        except self._errors as error:
            raise self._error("delete", error) from None

    def acquire(self, timeout: float | None) -> None:
        """Do nothing: there are no locks."""

    def release(self) -> None:
        """Do nothing."""

    def _error(self, what: str, error: Exception) -> Exception:
        """Return the error that the user is to see: without the text of obstore's, which may tell
        secrets.
        """
        errors = self._obstore.exceptions
        name = type(error).__name__
        text = str(error)
        if isinstance(error, (errors.PermissionDeniedError, errors.UnauthenticatedError)):
            return PermissionError(
                f"no permission to {what} {self.location} ({name}); check the credentials"
            )
        if "NoSuchBucket" in text:
            return FileNotFoundError(
                f"the bucket of {self.location} does not exist; make it, or correct the name"
            )
        status = next((code for code in ("500", "502", "503", "504") if f" {code} " in text), "")
        said = f", the server answered {status}" if status else ""
        return OSError(f"could not {what} {self.location} ({name}{said}); try again later")


def _known(version: dict[str, Any]) -> dict[str, Any]:
    """Return what there is of a version; obstore takes no None."""
    return {name: value for name, value in version.items() if value is not None}


def _obstore() -> Any:
    try:
        return importlib.import_module("obstore")
    except ModuleNotFoundError as error:
        if error.name != "obstore":
            raise
        raise ModuleNotFoundError(
            "documents in object stores need a package more: pip install 'richstore[s3]'",
            name="obstore",
        ) from error
