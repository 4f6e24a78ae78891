"""Documents: one tracked value in one file or one object of an object store."""

from __future__ import annotations

from richstore.documents.coding import Codec
from richstore.documents.document import Document, document

__all__ = ["Codec", "Document", "document"]
