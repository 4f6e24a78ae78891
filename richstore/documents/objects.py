"""Documents in object stores: S3 and its kin, by obstore.

There are no locks there. A write is conditional on the version that was read (`If-Match`), or on
there being nothing (`If-None-Match`), so who comes second is refused.

Theory of operation
-------------------

A write may be done although its answer is lost, and is then refused when it is sent again. So each
write has a *mark*, a random number that goes into the object's metadata, before the marks of the
last writes that it is based on. When the answer to a write is missing, the object is read back: if
its marks have ours, the write was done, also when others have written since. If they have the one
before ours and not ours, others were first. If the object is as before, the write is sent again,
with the same mark, until time is up. Only when others write without marks can nobody tell.

Reading and deleting are harmless to repeat; there obstore does it.

The rule: nothing of what the user gave as options, and nothing of what a server says but the status
and the name of its error, is ever part of a message, nor the context of an error.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import random
import re
import secrets
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from richstore.codec.policy import ANY, StrictPolicy
from richstore.errors import ConflictError

__all__ = ["ObjectPlace"]

T = TypeVar("T")

_SCHEMES = ("s3", "s3a", "gs", "az", "memory")
# The metadata with the marks, a word that all kinds of stores take, and how many marks are kept:
# S3 takes 2 KB of metadata.
_MARKS = "richstorecommits"
_MOST_MARKS = 60
# How a request is tried again, by default.
_RETRIES: dict[str, Any] = {
    "max_retries": 6,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {
        "init_backoff": timedelta(seconds=0.1),
        "max_backoff": timedelta(seconds=5),
        "base": 2,
    },
}
# What is in an error that came from the last places where credentials are looked for.
_METADATA = ("/latest/api/token", "/latest/meta-data", "169.254.", "metadata.google.internal")
# The version of an object that is known to have been replaced.
_REPLACED: dict[str, Any] = {"e_tag": ""}
# `memory://name/…` is one store for the process, as a path is one file
_memories: dict[str, Any] = {}
# the process that obstore works in
_process: int | None = None


class ObjectPlace:
    """One object.

    Args:
        url: where it is: the bucket or container, and the object's key as it is, nothing escaped.
        options: keys, region, endpoint and the like, as obstore takes them.

    Raises:
        ValueError: the URL names no object, or the options are not understood.
    """

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        scheme, _, rest = url.partition("://")
        bucket, _, key = rest.partition("/")
        scheme = scheme.lower()
        if "@" in bucket or ":" in bucket or "?" in rest:
            # nothing of it is shown
            raise ValueError(
                f"give keys and other options of a document at {scheme}:// as arguments, not in "
                f"the URL"
            )
        self.location = f"{scheme}://{bucket}/{key}"
        if scheme not in _SCHEMES:
            raise ValueError(
                f"{self.location} is no place for documents; give a path, or a URL that begins "
                f"with file://, {'://, '.join(_SCHEMES)}://"
            )
        if not bucket and scheme != "memory":
            raise ValueError(f"{self.location} names no bucket")
        if not key or key.endswith("/"):
            raise ValueError(f"{self.location} names no object; add its key to the URL")
        if any(part in ("", ".", "..") for part in key.split("/")):
            raise ValueError(f"the key of {self.location} has a part that is empty, or . or ..")
        self.name = key.rpartition("/")[2]
        self.classes = (
            ANY if scheme == "memory" else StrictPolicy("nobody can know who writes to a bucket")
        )
        self._key = key
        self._bucket = bucket
        self._obstore = _obstore()
        errors = self._obstore.exceptions
        # obstore raises some of Python's own as well
        self._errors = (errors.BaseError, OSError, ValueError)
        self._refused = (errors.PreconditionError, errors.AlreadyExistsError, FileNotFoundError)
        self._forbidden = (errors.PermissionDeniedError, errors.UnauthenticatedError)
        self._retries: dict[str, Any] = {**_RETRIES, **(options.get("retry_config") or {})}
        self._retries["backoff"] = {**_RETRIES["backoff"], **self._retries["backoff"]}
        self._reading, self._writing = self._open(scheme, dict(options))
        # what the object that was read or written last has besides its content
        self._attributes: dict[str, str] = {}

    def _open(self, scheme: str, options: dict[str, Any]) -> tuple[Any, Any]:
        """Return a store that repeats requests, and one that does not."""
        store = importlib.import_module("obstore.store")
        if scheme == "memory":
            if options:
                raise ValueError(f"{self.location} has no options {', '.join(sorted(options))}")
            memory = _memories.setdefault(self._bucket, store.MemoryStore())
            return memory, memory
        names = ", ".join(sorted(options)) or "none"
        options.pop("retry_config", None)
        endpoints = [*options.values(), *map(os.environ.get, ("AWS_ENDPOINT", "AWS_ENDPOINT_URL"))]
        if any(str(value).startswith("http://") for value in endpoints):
            # who asks for that gets it
            client = dict(options.get("client_options") or {})
            options["client_options"] = {"allow_http": True, **client}

        def build() -> tuple[Any, Any]:
            url = f"{scheme}://{self._bucket}"
            once = {**self._retries, "max_retries": 0}
            return (
                store.from_url(url, **options, retry_config=self._retries),
                store.from_url(url, **options, retry_config=once),
            )

        stores, error = self._try(build, TypeError)
        if stores is None:
            # its text may have the options in it
            raise ValueError(
                f"the options for {self.location} are not understood, or one is missing "
                f"({type(error).__name__}): given were {names}"
            )
        return stores

    def _try(
        self, work: Callable[[], T], *more: type[Exception]
    ) -> tuple[T, None] | tuple[None, Exception]:
        """Return what a function returns, or its error, so that ours is not raised inside it."""
        _stay_in_process()
        try:
            return work(), None
        except (*self._errors, *more) as error:
            return None, error

    def read(self) -> tuple[bytes | None, Any]:
        """Return the content and its version, by one GET; None for both when there is none.

        Raises:
            OSError: it cannot be read.
        """
        found = self._get()
        if found is None:
            self._attributes = {}
            return None, None
        data, version, self._attributes = found
        return data, version

    def _get(self) -> tuple[bytes, dict[str, Any], dict[str, str]] | None:
        def get() -> tuple[bytes, dict[str, Any], dict[str, str]]:
            found = self._obstore.get(self._reading, self._key)
            return bytes(found.bytes()), _known(found.meta), dict(found.attributes)

        found, error = self._try(get)
        if error is None:
            return found
        if isinstance(error, FileNotFoundError) and not _has_no_bucket(error):
            return None
        raise self._error("read", error)

    def is_current(self, version: object) -> bool:
        """Tell whether it is not known that somebody else has written since."""
        return version != _REPLACED

    def write(self, data: bytes, version: Any) -> dict[str, Any]:
        """Replace the object if it is still of the version that was read, by one PUT.

        Raises:
            ConflictError: it is of another version.
            OSError: it could not be written, or nobody can tell whether it was.
        """
        if version == _REPLACED:
            raise self._conflict()
        before = self._attributes.get(_MARKS, "").split(",")
        if before == [""]:
            before = [_origin(version)]
        mark = secrets.token_hex(8)
        marks = ",".join([mark, *before][:_MOST_MARKS])
        attributes = {**self._attributes, _MARKS: marks}
        mode: Any = "create" if version is None else version

        def put() -> dict[str, Any]:
            return _known(
                self._obstore.put(self._writing, self._key, data, mode=mode, attributes=attributes)
            )

        end = time.monotonic() + self._retries["retry_timeout"].total_seconds()
        tries = 0
        while True:
            made, error = self._try(put)
            if error is None:
                assert made is not None
                self._attributes = attributes
                return made
            if not tries and isinstance(error, self._refused) and _status(error) != 409:
                # it was sent once, and an answer came
                if _has_no_bucket(error):
                    raise self._error("write", error)
                raise self._conflict()
            if isinstance(error, self._forbidden) or _has_no_bucket(error):
                raise self._error("write", error)
            if not _is_unsent(error):
                outcome = self._outcome(mark, before[0], version, error)
                if outcome is not None:
                    return outcome
            tries += 1
            pause = self._pause(tries)
            if (
                not _is_passing(error)
                or tries > self._retries["max_retries"]
                or time.monotonic() + pause > end
            ):
                raise self._error("write", error)
            time.sleep(pause)

    def _pause(self, tries: int) -> float:
        """Return the seconds to wait before a write is tried again."""
        backoff = self._retries["backoff"]
        first = backoff["init_backoff"].total_seconds()
        longest = min(
            first * backoff.get("base", 2) ** tries, backoff["max_backoff"].total_seconds()
        )
        return random.uniform(first, max(first, longest))

    def _outcome(
        self, mark: str, before: str, version: Any, error: Exception
    ) -> dict[str, Any] | None:
        """Find out whether a write was done whose answer is missing, or says no to a repetition.

        Returns:
            The version that the write made; None: it has not been done.
        """
        failure: OSError | None = None
        found = None
        try:
            found = self._get()
        except OSError as second:
            failure = second
        if failure is not None:
            raise OSError(
                f"{self._error('write', error)}; and it could not be read back, so it is unknown "
                f"whether it was written: {failure}"
            )
        if found is None:
            if version is None:
                return None
            raise self._unknown(error)
        _, now, attributes = found
        marks = attributes.get(_MARKS, "").split(",")
        if mark in marks:
            self._attributes = attributes
            return now if marks[0] == mark else dict(_REPLACED)
        if now == version:
            return None
        if before in marks:
            raise self._conflict()
        raise self._unknown(error)

    def delete(self) -> None:
        """Remove the object.

        Raises:
            OSError: it cannot be removed.
        """
        _, error = self._try(lambda: self._obstore.delete(self._reading, self._key))
        self._attributes = {}
        gone = isinstance(error, FileNotFoundError) and not _has_no_bucket(error)
        if error is not None and not gone:
            raise self._error("delete", error)

    def acquire(self, timeout: float | None) -> None:
        """Do nothing: there are no locks."""

    def release(self) -> None:
        """Do nothing."""

    def forked(self) -> None:
        """Do nothing: the next use tells."""

    # --- errors ---

    def _conflict(self) -> ConflictError:
        return ConflictError(f"{self.location} was changed by somebody else since it was read")

    def _unknown(self, error: Exception) -> OSError:
        return OSError(
            f"{self.location} was changed by somebody else while a write was not answered "
            f"({_said(error)}), so it is unknown whether that change has this one in it; reload() "
            f"and look"
        )

    def _error(self, what: str, error: Exception) -> OSError:
        """Return the error that the user is to see."""
        said = _said(error)
        start = f"could not {what} {self.location}"
        text = str(error)
        if any(part in text for part in _METADATA):
            return PermissionError(
                f"{start}: no credentials were found ({said}); set them in the environment, or "
                f"give them as arguments"
            )
        if isinstance(error, self._forbidden):
            return PermissionError(
                f"{start}: no permission ({said}); check the credentials, and what they allow "
                f"(without permission to list a bucket, this is also the answer where no object is)"
            )
        if _has_no_bucket(error):
            return FileNotFoundError(
                f"{start}: the bucket {self._bucket} does not exist; make it, or correct the name"
            )
        if _is_unsent(error):
            return ConnectionError(
                f"{start}: the server cannot be reached ({said}); check the network, the region "
                f"and the endpoint"
            )
        return OSError(f"{start} ({said}); try again later")


def _status(error: Exception) -> int | None:
    """Return the status of a server's answer."""
    found = re.search(r"status code: (\d{3})\b", str(error))
    return None if found is None else int(found[1])


def _said(error: Exception) -> str:
    """Return what an error says that is no secret."""
    status = _status(error)
    code = re.search(r"<Code>(\w{1,50})</Code>", str(error))
    said = [type(error).__name__]
    if status is not None:
        said.append(f"the server answered {status}{f' {code[1]}' if code else ''}")
    return ", ".join(said)


def _has_no_bucket(error: Exception) -> bool:
    """Tell whether the bucket or container does not exist."""
    return any(code in str(error) for code in ("NoSuchBucket", "ContainerNotFound"))


def _is_unsent(error: Exception) -> bool:
    """Tell whether there was not even a connection."""
    return "kind: Connect" in str(error)


def _is_passing(error: Exception) -> bool:
    """Tell whether the same request may succeed later."""
    status = _status(error)
    return status is None or status >= 500 or status in (408, 409, 412, 429)


def _known(meta: Any) -> dict[str, Any]:
    """Return what there is of a version; obstore takes no None."""
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name) is not None}


def _origin(version: dict[str, Any] | None) -> str:
    """Return what stands for the mark of a version that was written without one."""
    return hashlib.sha256(repr(version and sorted(version.items())).encode()).hexdigest()[:16]


def _stay_in_process() -> None:
    """Raise an error where obstore would wait forever."""
    global _process
    if _process is None:
        _process = os.getpid()
    elif _process != os.getpid():
        raise RuntimeError(
            "documents in object stores do not work in a process that was made by a fork of one "
            "that used them; start processes with 'spawn' or 'forkserver', or use the first "
            "document in the child"
        )


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
