"""Which file system a path is on, as far as it matters: is it a network one?

LMDB maps the file into memory and coordinates processes through shared memory and locks. Both work
between processes of one machine only, so a file that several machines can open gets damaged. On
Linux the kernel's table of mounts tells; elsewhere there is no check. Knows nothing of LMDB.
"""

from __future__ import annotations

import errno
import sys

__all__ = ["network_file_system", "refuse_network"]

# fmt: off
_NETWORK = frozenset({
    "9p", "acfs", "afs", "afpfs", "beegfs", "ceph", "cifs", "coda", "davfs", "fuse.ceph",
    "fuse.cephfs", "fuse.curlftpfs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.juicefs",
    "fuse.rclone", "fuse.s3fs", "fuse.smbnetfs", "fuse.sshfs", "gfs", "gfs2", "glusterfs", "gpfs",
    "lustre", "moosefs", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs", "pvfs2",
    "smb2", "smb3", "smbfs", "vboxsf", "virtiofs",
})
# fmt: on


def network_file_system(path: str, mountinfo: str) -> str | None:
    r"""Return the type of the network file system that holds `path`, or None if it is a local one.

    Args:
        path: an absolute path without symbolic links.
        mountinfo: the text of `/proc/self/mountinfo`.

    >>> table = "25 1 8:1 / / rw - ext4 /dev/sda1 rw\n40 25 0:50 / /home rw - nfs4 host:/home rw"
    >>> network_file_system("/home/ann/shop.db", table)
    'nfs4'
    >>> network_file_system("/homes/shop.db", table) is None
    True
    """
    longest = -1
    kind = ""
    for line in mountinfo.splitlines():
        mount, separator, source = line.partition(" - ")
        fields = mount.split(" ")
        if not separator or len(fields) < 5:
            continue
        point = _unescape(fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        # of several mounts on one point the last one is seen
        if inside and len(point) >= longest:
            longest = len(point)
            kind = source.split(" ")[0]
    return kind if kind in _NETWORK else None


def _unescape(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def _mounts() -> str:
    if not sys.platform.startswith("linux"):
        return ""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
            return table.read()
    except FileNotFoundError:
        # a container without /proc: nothing can be told
        return ""


def refuse_network(path: str) -> None:
    """Raise if `path` is on a network file system; does nothing where that cannot be told.

    Raises:
        OSError: with `errno.ENOTSUP`.
    """
    kind = network_file_system(path, _mounts())
    if kind is not None:
        raise OSError(
            errno.ENOTSUP,
            f"the file is on a network file system ({kind}), where machines that share it would "
            f"damage it; use a local disk, or pass allow_network=True if only this machine opens "
            f"it",
            path,
        )
