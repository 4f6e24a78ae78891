"""Whether somebody else may have written a file: the rule by which classes are trusted by default.

A file is one's own if the user owns it and nobody else may write it, and if the directory it lies
in belongs to the user or to root and nobody else may put another file in its place.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat

from richstore.codec.policy import ANY, ClassPolicy, StrictPolicy

__all__ = ["default_policy", "strangers"]


def default_policy(status: os.stat_result, path: str) -> ClassPolicy:
    """Return the policy for a file of which nobody has said which classes it may name."""
    because = strangers(status, path)
    return ANY if because is None else StrictPolicy(because)


def strangers(status: os.stat_result, path: str) -> str | None:
    """Return who else may have written a file, for errors; None: nobody.

    Args:
        status: of the open file, not of its name, which may be another file's by now.
        path: where it is, symbolic links resolved.
    """
    user = os.geteuid()
    if status.st_uid != user:
        return f"the file belongs to user {_user_name(status.st_uid)}"
    writer = _other_writer(status)
    if writer is not None:
        return f"{writer} can write it (mode {stat.S_IMODE(status.st_mode):04o})"
    directory = os.path.dirname(path)
    try:
        above = os.stat(directory)
    except OSError as error:
        return f"the directory {directory} cannot be looked at ({error.strerror})"
    if above.st_uid not in (user, 0):
        return f"the directory {directory} belongs to user {_user_name(above.st_uid)}"
    # in a sticky directory such as /tmp everybody has files, and nobody can replace those of others
    writer = None if above.st_mode & stat.S_ISVTX else _other_writer(above)
    if writer is not None:
        mode = stat.S_IMODE(above.st_mode)
        return f"the directory {directory} can be written by others: {writer} (mode {mode:04o})"
    return None


def _other_writer(status: os.stat_result) -> str | None:
    """Return who but the owner may write, by the permission bits."""
    if status.st_mode & stat.S_IWOTH:
        return "everybody"
    if status.st_mode & stat.S_IWGRP and not _is_own_group(status.st_gid):
        return f"group {_group_name(status.st_gid)}"
    return None


def _is_own_group(gid: int) -> bool:
    """Tell whether a group has the user's name, and no other member than the user."""
    try:
        user = pwd.getpwuid(os.geteuid())
        group = grp.getgrgid(gid)
    except KeyError:
        return False
    return (
        user.pw_gid == gid
        and group.gr_name == user.pw_name
        and set(group.gr_mem) <= {user.pw_name}
        and not any(one.pw_gid == gid and one.pw_uid != user.pw_uid for one in pwd.getpwall())
    )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
