"""An S3 server, moto's, over HTTP: run as a script, it prints its port and serves until it ends.

It does one request after the other. Moto itself looks at a condition first and stores afterwards,
and would now and then let two through at the same time; S3 does not.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

application: Any = DomainDispatcherApplication(create_backend_app)
lock = threading.Lock()


def one_at_a_time(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    """Answer a request while no other is answered."""
    with lock:
        answer: Iterable[bytes] = application(environ, start)
        return answer


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server(
        "127.0.0.1", 0, one_at_a_time, threaded=True, request_handler=MotoRequestHandler
    )
    print(server.port, flush=True)
    server.serve_forever()
