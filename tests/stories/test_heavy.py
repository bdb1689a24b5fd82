"""Heavy requests to a real service: each in a process of its own, which may be killed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import psutil
import pytest

from service.run import forking
from tests.helpers import until
from tests.stories.instance import Answer, Author, Caller, Service, definition

NODES = 5_000


def large(nodes: int = NODES) -> dict[str, object]:
    listed = [{"id": f"n{n}", "type": "transform", "data": {"label": f"Node {n}"}} for n in range(nodes)]
    return {"name": "Large", "nodes": listed, "edges": []}


def apart(service: Service) -> list[psutil.Process]:
    """Processes of heavy requests: the descendants of the service with a lower priority."""
    processes = []
    for process in service.family():
        with suppress(psutil.NoSuchProcess):
            if process.nice() >= os.nice(0) + forking.NICE and "git" not in process.name():
                processes.append(process)
    return processes


@contextmanager
def in_progress(service: Service, caller: Caller) -> Iterator[list[Answer]]:
    """A heavy request that has its process when the block begins, and its answer when it ends."""
    answers: list[Answer] = []
    body = large()

    def ask() -> None:
        answers.append(caller.call("POST", "/workflows/flow/validate", body))

    thread = threading.Thread(target=ask)
    thread.start()
    until(lambda: apart(service), "no process of its own")
    yield answers
    thread.join()


@pytest.fixture
def author(owner: Caller) -> Caller:
    assert owner.call("POST", "/workflows", {"slug": "flow", "definition": definition("x")}).status == 201
    return owner


def test_heavy_and_light_requests_get_the_same_answers(service: Service, author: Caller) -> None:
    """Statuses, headers, keys and counts are the same, and no process is left."""
    caller = author
    small, big = ({"slug": slug, "definition": large(nodes)} for slug, nodes in (("a", 3), ("b", NODES)))
    first, second = caller.call("POST", "/workflows", small), caller.call("POST", "/workflows", big)
    assert (first.status, second.status) == (201, 201)
    assert sorted(set(first.headers) - {"Connection"}) == sorted(set(second.headers) - {"Connection"})
    assert first.json.keys() == second.json.keys()
    checked = [caller.call("POST", f"/workflows/{slug}/validate") for slug in "ab"]
    assert checked[0].json.keys() == checked[1].json.keys()
    broken = caller.call("POST", "/workflows", {"slug": "c", "definition": {"x" * 20_000: 1}, "y": 1})
    assert (broken.status, broken.headers["Content-Type"]) == (400, "application/problem+json")
    assert broken.headers["X-Request-Id"] in broken.json["instance"]
    assert broken.headers["X-Content-Type-Options"] == "nosniff"

    def counted() -> str:
        lines = caller.call("GET", "/metrics").raw.decode().splitlines()
        return "".join(line for line in lines if line.startswith("gitstore_publishes_total"))

    before = counted()
    refused = caller.call("POST", "/workflows/b/versions/publish", {})
    assert refused.status in (201, 422)
    assert counted() != before
    until(lambda: not apart(service), "a process is left")


def test_light_requests_do_not_wait_for_heavy_ones(service: Service, author: Caller) -> None:
    """Two viewers with six heavy requests at once, and another tenant's reads: all are served, in turn."""
    viewers = [service.caller(author.project, "viewer") for _ in range(2)]
    other = service.project(f"{author.project}-other")
    body = large(2_000)
    with ThreadPoolExecutor(14) as pool:
        heavy = [
            pool.submit(viewers[number % 2].call, "POST", "/workflows/flow/validate", body)
            for number in range(6)
        ]
        light = [pool.submit(other.call, "GET", "/workflows") for _ in range(8)]
        assert {each.result().status for each in heavy + light} == {200}
    until(lambda: not apart(service), "a process is left")


def _runs(pid: int) -> bool:
    """Return whether the process has not ended; a zombie has."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_killed_request_is_413(own_service: Service) -> None:
    """The next one is served; without a fork server, by the serving process itself."""
    caller = own_service.project("own")
    assert caller.call("POST", "/workflows", {"slug": "flow", "definition": definition("x")}).status == 201
    with in_progress(own_service, caller) as answers:
        for process in apart(own_service):
            process.kill()
    assert (answers[0].status, answers[0].json["code"]) == (413, "too_large")
    with in_progress(own_service, caller) as answers:
        servers = {process.ppid() for process in apart(own_service)}
    assert answers[0].status == 200
    for pid in servers:
        psutil.Process(pid).kill()
    # Until its sockets are closed, the kernel still accepts a request for it, which would be lost with it.
    until(lambda: not any(_runs(pid) for pid in servers), "a fork server runs")
    assert caller.call("POST", "/workflows/flow/validate", large(1000)).status == 200


def test_a_large_push_has_a_process_of_its_own(service: Service, author: Caller, ann: Author) -> None:
    """Its pack does not compress. It is counted and mirrored like a small one."""
    ann.draft("pushed", definition(os.urandom(20_000).hex()))
    ann.tag("pushed", 1)
    assert ann.push("drafts/pushed", "pushed/v1").ok
    shown = author.call("GET", "/workflows/pushed/versions/current")
    assert shown.json["version_number"] == 1
    assert 'door="git",outcome="published"' in author.call("GET", "/metrics").raw.decode()
