"""A push in a process of its own, so that its memory and its children's can be measured.

    python -m tests.gitstore.pushing <repository> <file with the request>

prints JSON: {"report": the report's lines, "own": MiB that the push added to the process, "child": MiB of the
largest child}.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from uuid import UUID

from gitstore.store import Store
from tests.gitstore.test_receive import send


def peak(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 1024


def main(repository: str, request: str) -> None:
    store = Store(Path(repository), UUID(int=3))
    before = peak(resource.RUSAGE_SELF)
    report, _ = send(store, Path(request).read_bytes())
    own, child = peak(resource.RUSAGE_SELF) - before, peak(resource.RUSAGE_CHILDREN)
    print(json.dumps({"report": report, "own": own, "total": peak(resource.RUSAGE_SELF), "child": child}))


if __name__ == "__main__":
    main(*sys.argv[1:])
