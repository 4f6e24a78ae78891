"""Sealed values: shown to nobody by accident, stored only where everything is encrypted."""

from __future__ import annotations

import hmac
from typing import Any

__all__ = ["Sealed", "restore", "stored_form"]


class Sealed:
    """A value that is not seen in logs and at the prompt, for stores with a key.

    What is in it is pickled at once: a copy, that `reveal` gives anew each time. It can be a value
    of a store or anywhere inside one. A store without a key refuses it, and so does pickle. It
    cannot be changed, so it is safe to use from many threads.

    Args:
        value: what is to be sealed: anything that a store can hold.

    Raises:
        EncodingError: pickle refuses the value.

    Example:
        >>> import richstore
        >>> token = richstore.Sealed("hunter2")
        >>> token
        <Sealed>
        >>> token.reveal()
        'hunter2'
    """

    __slots__ = ("__weakref__", "_blob", "_classes")

    _blob: bytes
    # says what it may name when it is revealed; None: anything
    _classes: Any

    def __init__(self, value: Any) -> None:
        if isinstance(value, Sealed):
            raise TypeError("it is sealed already")
        from richstore.codec.stream import dump_blob

        object.__setattr__(self, "_blob", dump_blob(value))
        object.__setattr__(self, "_classes", None)

    def reveal(self) -> Any:
        """Return the value, a copy of its own each time.

        Raises:
            UntrustedClassError: it names what the store that it is from does not allow.
        """
        from richstore.codec.records import load_blob

        return (
            load_blob(self._blob) if self._classes is None else load_blob(self._blob, self._classes)
        )

    def check(self, classes: Any) -> None:
        """Raise `UntrustedClassError` if it could not be revealed under a policy."""
        from richstore.codec.records import load_blob

        if classes.strict:
            load_blob(self._blob, classes)

    def __repr__(self) -> str:
        return "<Sealed>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sealed):
            return NotImplemented
        return hmac.compare_digest(self._blob, other._blob)

    def __hash__(self) -> int:
        return hash((Sealed, self._blob))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a Sealed cannot be changed; make a new one")

    def __copy__(self) -> Sealed:
        return self

    def __deepcopy__(self, memo: Any) -> Sealed:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a Sealed is stored in stores with a key alone; pickle what it reveals")


def restore(blob: bytes, classes: Any = None) -> Sealed:
    """Return what was sealed, from its stored form; named in records."""
    made: Sealed = object.__new__(Sealed)
    object.__setattr__(made, "_blob", blob)
    object.__setattr__(made, "_classes", classes)
    return made


def stored_form(sealed: Sealed) -> tuple[Any, ...]:
    """Return the reduction (function, arguments) of one."""
    return restore, (sealed._blob,)
