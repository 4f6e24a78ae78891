"""The values that the workloads store: of fixed sizes, their contents told by a number alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["PLACE", "Account", "row", "table"]

# Where the workloads read and write inside `table()`.
PLACE = ("rows", 3, "price")


@dataclass
class Account:
    """A small instance, as users write them."""

    owner: str
    balance: int = 0
    entries: list[int] = field(default_factory=list)

    def total(self) -> int:
        """Return the balance."""
        return self.balance


def row(at: int) -> dict[str, Any]:
    """Return a small dict."""
    return {"id": at, "name": f"item {at % 1000}", "price": (at % 1000) * 1.5}


def table() -> dict[str, Any]:
    """Return a value with ten small dicts in a nested list."""
    return {"rows": [row(at) for at in range(10)]}
