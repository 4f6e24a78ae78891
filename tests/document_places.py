"""The places of documents for tests: a file, `memory://`, and S3 over HTTP.

`place` is a place of each kind in turn, where nothing is stored yet; `s3` is one on S3, and
`proxied` one behind a proxy (see `s3_proxy`). They are for all tests: `conftest` has them.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from s3_proxy import Proxy

import richstore

BUCKET = "documents"
KEYS = {
    "access_key_id": "AKIATESTTESTTEST",
    "secret_access_key": "the/secret+access/key",
    "region": "eu-central-1",
}
_numbers = itertools.count()


class Place:
    """A place where one document can be, and what only a test asks of it.

    Args:
        location: as `richstore.document` takes it.
        options: for an object store.
    """

    def __init__(self, location: str, **options: Any) -> None:
        self.location = location
        self.options = options

    @property
    def is_file(self) -> bool:
        return "://" not in self.location

    def open(self, **more: Any) -> Any:
        """Open the document."""
        return richstore.document(self.location, **{**self.options, **more})

    def _store(self) -> tuple[Any, str]:
        from obstore.store import MemoryStore, from_url

        from richstore.documents.objects import _memories

        scheme, _, rest = self.location.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme == "memory":
            return _memories.setdefault(bucket, MemoryStore()), key
        options = {name: self.options[name] for name in (*KEYS, "endpoint")}
        client = {"allow_http": True}
        return from_url(f"s3://{bucket}", **options, client_options=client), key

    def stored(self) -> bytes | None:
        """Return what is there."""
        try:
            if self.is_file:
                return Path(self.location).read_bytes()
            import obstore

            store, key = self._store()
            return bytes(obstore.get(store, key).bytes())
        except FileNotFoundError:
            return None

    def put(self, data: bytes) -> None:
        """Write there as somebody who knows nothing of us does."""
        if self.is_file:
            Path(self.location).write_bytes(data)
        else:
            import obstore

            store, key = self._store()
            obstore.put(store, key, data)

    def stamp(self) -> object:
        """Return what tells each write from every other one."""
        if self.is_file:
            found = os.stat(self.location)
            return found.st_ino, found.st_mtime_ns
        import obstore

        store, key = self._store()
        found = obstore.get(store, key)
        return found.meta["e_tag"], found.meta["last_modified"], found.attributes


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of an S3 server in a process of its own, with one bucket."""
    for needed in ("moto.server", "obstore", "boto3"):
        pytest.importorskip(needed, reason="the extra `test` is not installed")
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("s3_server.py"))],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}"
            client(url).create_bucket(
                Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": KEYS["region"]}
            )
            yield url
        finally:
            server.kill()


def client(url: str) -> Any:
    """Return a client of boto3, which shares nothing with what is tested."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=KEYS["access_key_id"],
        aws_secret_access_key=KEYS["secret_access_key"],
        region_name=KEYS["region"],
    )


@pytest.fixture
def s3(s3_server: str) -> Place:
    """An object on S3 that does not exist yet."""
    return Place(f"s3://{BUCKET}/{next(_numbers)}/state.json", endpoint=s3_server, **KEYS)


@pytest.fixture(params=["file", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place of each kind where nothing is stored yet."""
    if request.param == "file":
        return Place(str(tmp_path / "state.json"))
    if request.param == "memory":
        pytest.importorskip("obstore", reason="the extra `s3` is not installed")
        return Place(f"memory://test/{next(_numbers)}/state.json")
    found: Place = request.getfixturevalue("s3")
    return found


@pytest.fixture
def proxy(s3_server: str) -> Iterator[Proxy]:
    """A proxy in front of the S3 server."""
    with Proxy(s3_server) as running:
        yield running


@pytest.fixture
def proxied(proxy: Proxy, s3: Place) -> Place:
    """The place of `s3`, behind the proxy."""
    return Place(s3.location, **{**s3.options, "endpoint": proxy.url})
