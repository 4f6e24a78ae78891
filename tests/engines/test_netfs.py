from __future__ import annotations

import errno
import os

import pytest

from engines.processes import open_it
from richstore.engines.netfs import network_file_system

MOUNTS = r"""
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:20 / /proc rw - proc proc rw
30 21 0:50 / /home rw,relatime shared:5 master:2 - nfs4 server:/home rw,vers=4.2
31 30 8:2 / /home/local rw - xfs /dev/sdb1 rw
32 21 0:51 / /mnt/my\040share rw - cifs //nas/share rw
33 21 0:52 / /mnt/ssh rw - fuse.sshfs ann@host: rw
34 21 0:53 / /data rw - ext4 /dev/sdc1 rw
35 34 0:54 / /data rw - lustre mgs@tcp:/fs rw
36 21 0:55 / /usb rw - fuseblk /dev/sdd1 rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/shop.db", None),
        ("/home/ann/shop.db", "nfs4"),
        ("/home", "nfs4"),
        ("/homes/shop.db", None),
        ("/home/local/shop.db", None),
        ("/home/localized/shop.db", "nfs4"),
        ("/mnt/my share/shop.db", "cifs"),
        ("/mnt/ssh/deep/er/shop.db", "fuse.sshfs"),
        ("/mnt/shop.db", None),
        ("/data/shop.db", "lustre"),
        ("/usb/shop.db", None),
    ],
)
def test_network_file_system(path: str, kind: str | None) -> None:
    """The longest mount point above a path decides, and of several on one point the last."""
    assert network_file_system(path, MOUNTS) == kind


def test_network_file_system_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file on a network file system is not opened or made, unless that is asked for."""
    table = f"40 1 0:9 / {os.path.dirname(path)} rw - nfs server:/x rw\n"
    monkeypatch.setattr("richstore.engines.netfs._mounts", lambda: table)
    with pytest.raises(OSError, match="allow_network=True") as caught:
        open_it(path)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOTSUP, path)
    assert not os.path.exists(path)
    open_it(path, allow_network=True).close()
