"""A push in a process of its own, so that its memory and its children's can be measured.

    python -m tests.gitstore.push_process <repository> <file with the request>

prints JSON: {"report": the report's lines, "total": MiB of the process at its most, "child": MiB of its
largest child}.
"""

from __future__ import annotations

import json
import re
import resource
import sys
from pathlib import Path
from uuid import UUID

from gitstore.store import Store
from gitstore.unit_of_work import FileUnitOfWork
from tests.gitstore.test_receive import send


def peak() -> float:
    """The peak memory of this process in MiB; ru_maxrss would begin with the parent's."""
    peak_line = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return (
        int(peak_line[1]) / 1024 if peak_line else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )


def main(repository: str, request: str) -> None:
    store = Store(Path(repository), UUID(int=3), FileUnitOfWork)
    report, _ = send(store, Path(request).read_bytes())
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps({"report": report, "total": peak(), "child": child}))


if __name__ == "__main__":
    main(*sys.argv[1:])
