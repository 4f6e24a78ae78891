"""Encryption over any engine; the only place that imports cryptography.

`header` has how the user's key leads to the data keys, `cipher` how one piece of data is sealed,
`engine` the engine that seals every key and value, `rekeying` how keys are changed.
"""

from richstore.engines.encrypted.engine import EncryptedEngine
from richstore.engines.encrypted.header import Header, Secret, open_alone, seal_alone
from richstore.engines.encrypted.rekeying import change_key, encrypt_anew

__all__ = [
    "EncryptedEngine",
    "Header",
    "Secret",
    "change_key",
    "encrypt_anew",
    "open_alone",
    "seal_alone",
]
