"""A proxy in front of an S3 server: it notes each request, and makes the faults it is asked for."""

from __future__ import annotations

import http.client
import http.server
import random
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Proxy"]

DENIED = """<?xml version="1.0"?><Error><Code>{code}</Code><Message>Told to.</Message>
<AWSAccessKeyId>{key}</AWSAccessKeyId><StringToSign>{signed}</StringToSign></Error>"""
CODES = {
    403: "SignatureDoesNotMatch",
    409: "ConditionalRequestConflict",
    412: "PreconditionFailed",
    500: "InternalError",
    503: "SlowDown",
}


@dataclass
class Fault:
    """What is to be done with the next requests of a method.

    Attributes:
        method: PUT, GET, …
        status: what to answer; None: nothing at all, the connection is dropped.
        done: whether the request gets to the server.
        delay: seconds before the answer.
        before: seconds before the request gets to the server.
        true: whether the answer is the server's.
        times: how many requests.
    """

    method: str
    status: int | None = None
    done: bool = False
    delay: float = 0.0
    before: float = 0.0
    true: bool = False
    times: int = 1


class Proxy(http.server.ThreadingHTTPServer):
    """The proxy; a context manager.

    Args:
        upstream: the URL of the server.
        port: where it listens; 0: anywhere.
    """

    daemon_threads = False

    def __init__(self, upstream: str, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.upstream = upstream
        self.faults: list[Fault] = []
        # method, path with query, and the status that was answered (0: dropped)
        self.requests: list[tuple[str, str, int]] = []
        self.headers: list[dict[str, str]] = []
        # requests that have no answer yet
        self.under_way = 0
        # what makes faults by chance, with one request in four
        self.chance: random.Random | None = None
        self.connections: set[socket.socket] = set()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def methods(self) -> list[str]:
        return [method for method, _, _ in self.requests]

    def fault(self, method: str, status: int | None = None, **more: Any) -> None:
        """Make a fault with a coming request, after those that were asked for before."""
        self.faults.append(Fault(method, status, **more))

    def take(self, method: str) -> Fault | None:
        """Return what is to be done with a request that has come."""
        with self.lock:
            for fault in self.faults:
                if fault.method == method:
                    fault.times -= 1
                    if not fault.times:
                        self.faults.remove(fault)
                    return fault
            if self.chance is not None and self.chance.random() < 0.25:
                return Fault(
                    method, self.chance.choice([None, 500, 503]), self.chance.random() < 0.6
                )
        return None

    def __enter__(self) -> Proxy:
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.thread.join()
        with self.lock:
            for connection in self.connections:
                _hang_up(connection)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that does not wait for its answer is part of the tests."""


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it has done so itself


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.server.lock:
            self.server.connections.add(self.connection)

    def finish(self) -> None:
        with self.server.lock:
            self.server.connections.discard(self.connection)
        super().finish()

    def _answer(self) -> None:
        with self.server.lock:
            self.server.under_way += 1
        try:
            self._answer_one()
        finally:
            with self.server.lock:
                self.server.under_way -= 1

    def _answer_one(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.take(self.command)
        if fault is not None:
            time.sleep(fault.before)
        status, headers, answer = 0, {}, b""
        if fault is None or fault.done or fault.true:
            status, headers, answer = self._forward(body)
        if fault is not None:
            time.sleep(fault.delay)
            if not fault.true:
                status, headers, answer = self._made_up(fault)
        with self.server.lock:
            self.server.requests.append((self.command, self.path, status))
            self.server.headers.append(dict(self.headers))
        if not status:
            self.close_connection = True
            _hang_up(self.connection)
            return
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.command != "HEAD" and status != 204:
            headers = {name.lower() for name in headers}
            if "content-length" not in headers:
                self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    def _made_up(self, fault: Fault) -> tuple[int, dict[str, str], bytes]:
        if fault.status is None:
            return 0, {}, b""
        signed = self.headers.get("Authorization", "")
        token = self.headers.get("x-amz-security-token", "")
        key = signed.partition("Credential=")[2].partition("/")[0]
        text = DENIED.format(code=CODES[fault.status], key=key, signed=f"{signed} {token}")
        return fault.status, {"Content-Type": "application/xml"}, text.encode()

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        where = urlsplit(self.server.upstream)
        connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=20)
        try:
            connection.request(self.command, self.path, body or None, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            skipped = ("connection", "transfer-encoding", "date", "server")
            headers = {name: x for name, x in answer.getheaders() if name.lower() not in skipped}
            return answer.status, headers, content
        finally:
            connection.close()

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _answer

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""
