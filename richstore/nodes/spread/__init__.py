"""Containers that spread over many records: how they are read, and how they are changed."""

from __future__ import annotations

from richstore.nodes.spread.lists import SpreadList
from richstore.nodes.spread.mappings import SpreadDict, SpreadSet
from richstore.nodes.spread.operations import SPREAD_OPERATIONS

__all__ = ["SPREAD_OPERATIONS", "SpreadDict", "SpreadList", "SpreadSet"]
