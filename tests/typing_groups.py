"""What type checkers know of groups: mypy checks this file as it checks the package.

An `ignore` stands where an error has to be; one that is not needed is an error itself.
"""

from __future__ import annotations

from typing import Any, assert_type
from uuid import UUID

import richstore


class User:
    """A value of a class of the user's own."""

    name = "Ann"


class Users(richstore.Group[UUID, User]):
    """A group whose keys and values have types."""

    def named(self, name: str) -> list[User]:
        """Return the users of a name."""
        return [user for user in self.values() if user.name == name]


def typed(store: richstore.Store, key: UUID) -> None:
    """Read and change a group with types."""
    users = store.group("users", Users)
    assert_type(users, Users)
    assert_type(users[key], User)
    assert_type(users.get(key), User | None)
    assert_type(users.get(key, 5), User | int)
    assert_type(users.pop(key), User)
    assert_type(users.pop(key, None), User | None)
    assert_type(users.setdefault(key, User()), User)
    assert_type(users.popitem(), tuple[UUID, User])
    assert_type(list(users), list[UUID])
    assert_type(users.copy(), dict[UUID, User])
    assert_type(users.named("Ann"), list[User])
    assert_type(users.group("inner", Users)[key].name, str)
    for one, user in users.items(reverse=True):
        assert_type((one, user), tuple[UUID, User])
    users[key] = User()
    users["ann"]  # type: ignore[index]
    users["ann"] = User()  # type: ignore[index]
    users[key] = 5  # type: ignore[assignment]
    del users["ann"]  # type: ignore[arg-type]
    users[key].age  # type: ignore[attr-defined]  # noqa: B018
    store.group(5)  # type: ignore[call-overload]
    store.group("users", dict)  # type: ignore[type-var]


def untyped(store: richstore.Store) -> None:
    """Read and change a group without types."""
    group = store.group("users")
    assert_type(group, richstore.Group[Any, Any])
    group["ann"] = 5
    group[1, "x"] = [group["ann"]]
    assert_type(store.groups() + group.groups(), list[str])
    assert_type(group.parent.group("other", richstore.Group[str, int])["ann"], int)
