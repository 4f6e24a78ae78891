"""Remembered functions and methods: what they return is computed once and kept.

`arguments` makes keys of calls, `places` knows where results are kept, `claims` lets one of many
compute, `instances` has what belongs to an instance, and `decorator` puts them together.
"""

from __future__ import annotations

from richstore.remembered.decorator import Handle, Remembered, RememberedProperty, persisted
from richstore.remembered.instances import Persistable

__all__ = ["Handle", "Persistable", "Remembered", "RememberedProperty", "persisted"]
