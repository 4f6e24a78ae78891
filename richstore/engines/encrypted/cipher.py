"""Encrypting and authenticating one piece of data: XAES-256-GCM.

AES-256-GCM is fast, and broken as soon as one of its nonces of 96 bits is used twice with a key, so
random ones are good for some 2³² messages. XAES-256-GCM (C2SP, https://c2sp.org/XAES-256-GCM) takes
nonces of 192 bits: the first half derives a key of AES-256-GCM, the second half is its nonce. So
random nonces are safe for 2⁸⁰ messages, in any number of processes, after forks, and when a
virtual machine goes on twice from one state.

Deriving a key costs more than encrypting a small record. So a process keeps the first half for its
next 2²⁴ messages, and draws the second half anew for each.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher as _BlockCipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

__all__ = ["OVERHEAD", "Cipher", "InvalidTag"]

# Messages for which the first half of the nonce stays: 2⁻⁴⁹ for two equal second halves.
_MESSAGES = 1 << 24
# How many derived keys are kept.
_KEPT = 256

OVERHEAD = 24 + 16
"""Bytes by which sealed data is longer: the nonce and the tag."""


class Cipher:
    """Seals and opens data with one key of 32 bytes; safe to use from many threads.

    >>> cipher = Cipher(bytes(32))
    >>> cipher.open(cipher.seal(b"text", b"its place"), b"its place")
    b'text'
    """

    __slots__ = ("_block", "_first", "_left", "_opened", "_seal", "_subkey")

    def __init__(self, key: bytes) -> None:
        self._block = _BlockCipher(AES(key), ECB())
        # the subkey of CMAC for whole blocks: twice AES(0) in the field of 2¹²⁸ elements
        zero = int.from_bytes(self._encrypt_block(bytes(16)), "big")
        doubled = (zero << 1) & ((1 << 128) - 1)
        self._subkey = doubled ^ (0x87 if zero >> 127 else 0)
        self._opened: dict[bytes, AESGCM] = {}
        self._left = 0

    def seal(self, data: bytes, place: bytes, front: bytes = b"") -> bytes:
        """Return nonce, encrypted data and tag.

        Args:
            data: what is to be kept secret.
            place: what it belongs to: `open` needs the same.
            front: what is to stand in front of it in the clear.
        """
        if self._left <= 0:
            self._begin()
        self._left -= 1
        first, seal = self._seal
        second = os.urandom(12)
        return front + first + second + seal(second, data, place)

    def open(self, sealed: bytes, place: bytes, start: int = 0) -> bytes:
        """Return the data.

        Args:
            sealed: what `seal` returned.
            place: what it belongs to.
            start: where it begins in `sealed`.

        Raises:
            InvalidTag: it was sealed with another key or for another place, or has been changed.
        """
        middle = start + 12
        end = middle + 12
        first = sealed[start:middle]
        if len(sealed) < start + OVERHEAD:
            raise InvalidTag
        opened = self._opened.get(first)
        if opened is None:
            if len(self._opened) >= _KEPT:
                self._opened.clear()
            opened = self._opened[first] = self._derive(first)
        return opened.decrypt(sealed[middle:end], sealed[end:], place)

    def _begin(self) -> None:
        first = os.urandom(12)
        self._seal = first, self._derive(first).encrypt
        self._left = _MESSAGES

    def _derive(self, first: bytes) -> AESGCM:
        """Return the key that the first half of a nonce stands for."""
        halves = [
            self._encrypt_block(
                (
                    int.from_bytes(bytes((0, number)) + b"X\0" + first, "big") ^ self._subkey
                ).to_bytes(16, "big")
            )
            for number in (1, 2)
        ]
        return AESGCM(b"".join(halves))

    def _encrypt_block(self, block: bytes) -> bytes:
        encryptor = self._block.encryptor()
        return encryptor.update(block) + encryptor.finalize()
