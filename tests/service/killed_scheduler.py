"""A worker that carries out due schedules, and kills itself at a named place of the way.

    python -m tests.service.killed_scheduler <data folder> <conninfo>

reads a line of JSON for each worker, {"at": place, "nth": n}, and answers with one, {"killed": bool,
"passed": how often each place was passed}. Places are those of tests/sync/kill_points.py, and a few more.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

from service import logs
from service.actions import schedules as actions
from service.caller import Backend
from service.config import Config
from sync import schedules
from sync.db import Database
from tests.sync.kill_points import PLACES, Trap

OWN = {
    "claimed": "sync.schedules:claim",
    "held": "sync.schedules:is_held",
    "finished": "sync.schedules:finish",
    "stopped": "sync.schedules:stop",
}


def carry_out(data: str, conninfo: str) -> None:
    """Claim what is due, and carry it out, as the loop does."""
    database = Database(conninfo, max_connections=4)
    config = Config.from_env({"GITSTORE_DATA": data, "DATABASE_URL": conninfo})
    backend = Backend.of(config, database)
    with database.as_mirror() as tx:
        claims = schedules.claim(tx, 10)
    for claimed in claims:
        actions.carry_out(backend, claimed)


def in_a_child(data: str, conninfo: str, asked: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            trap = Trap(asked["at"], asked["nth"], {**PLACES, **OWN})
            trap.install()
            error = None
            try:
                carry_out(data, conninfo)
            except Exception:
                error = traceback.format_exc()
            os.write(writing, json.dumps({"passed": trap.passed, "error": error}).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        line = answer.read()
    _, status = os.waitpid(child, 0)
    return {"killed": os.WIFSIGNALED(status), **(json.loads(line) if line else {"passed": {}, "error": None})}


if __name__ == "__main__":
    logs.configure("json", "error")  # on stderr
    for line in sys.stdin:
        print(json.dumps(in_a_child(sys.argv[1], sys.argv[2], json.loads(line))), flush=True)
