"""A process that has one store: `python -m benchmarks.worker PEER`.

Each line that it reads is a task as JSON, `{"task": name, …arguments}`; each line that it writes
is `{"result": …}` or `{"error": …}`. It ends when its input does.
"""

from __future__ import annotations

import json
import os
import sys

from benchmarks.adapters import ADAPTERS
from benchmarks.tasks import TASKS, Session


def main(peer: str) -> None:
    """Do the tasks that come in."""
    # what a library prints must not get between the answers
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    session = Session(ADAPTERS[peer])
    print(json.dumps({"result": os.getpid()}), file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            result = TASKS[request.pop("task")](session, **request)
        except Exception as error:  # noqa: BLE001 - it goes to the process that asked
            answer = {"error": f"{type(error).__name__}: {error}"}
        else:
            answer = {"result": result}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main(sys.argv[1])
