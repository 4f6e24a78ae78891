"""Documents with a key: a format around another one, whose bytes are encrypted.

What is stored is the key header (see `engines.encrypted.header`), a line feed, and the bytes of the
other format, sealed. A document that is put back to what it was opens as it did then: there is one
piece of data, and nothing beside it that would tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from richstore.codec.policy import ANY, ClassPolicy
from richstore.documents.formats import Format
from richstore.engines.base import HEADER_MAGIC
from richstore.errors import CorruptionError, FormatError, WrongKeyError

if TYPE_CHECKING:
    from richstore.engines.encrypted import Header, Secret

__all__ = ["EncryptedFormat"]


class EncryptedFormat:
    """A format whose bytes are encrypted.

    Args:
        inside: the format of what is encrypted.
        secret: what the user has given.
    """

    def __init__(self, inside: Format, secret: Secret) -> None:
        self.name = f"encrypted {inside.name}"
        self._inside = inside
        self._secret = secret
        # of what was read or written last: one data key for the life of a document
        self._header: tuple[Header, bytes] | None = None

    def encode(self, value: Any, classes: ClassPolicy = ANY) -> bytes:
        """Return the encrypted bytes of a plain value; see `Format.encode`.

        Raises:
            EncodingError: the format inside cannot hold it.
        """
        from richstore.engines.encrypted import Header, seal_alone

        data = self._inside.encode(value, classes)
        if self._header is None:
            header = Header.new(names=True)
            self._header = header, header.pack(self._secret)
        return seal_alone(data, *self._header)

    def decode(self, data: bytes, location: str, classes: ClassPolicy = ANY) -> Any:
        """Return the value that encrypted bytes stand for; see `Format.decode`.

        Raises:
            WrongKeyError: they were encrypted with another key, or not at all.
            CorruptionError: they are damaged.
            FormatError: what is inside is not of the format.
        """
        from richstore.engines.encrypted import open_alone

        if not data.startswith(HEADER_MAGIC):
            raise WrongKeyError(
                f"{location} is not encrypted; open it without a key, and copy its value into a "
                f"new document that has one"
            )
        try:
            opened, header, packed = open_alone(data, self._secret)
        except (WrongKeyError, CorruptionError, FormatError) as error:
            raise type(error)(f"{location} cannot be opened: {error}") from None
        self._header = header, packed
        return self._inside.decode(opened, location, classes)
