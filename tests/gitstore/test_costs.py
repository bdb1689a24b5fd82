"""Bounds on the listed problems of a definition and on the time spent on it."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest
import rfc8785

from gitstore import budget
from gitstore.definition import document
from gitstore.definition.rules.node_rules import MOST_EXPRESSIONS
from gitstore.diff.sequences import text_diff
from gitstore.diff.structure import diff
from gitstore.diff.summary import TOO_MUCH, summary_of
from gitstore.drafts import File
from gitstore.errors import Code, GitstoreError
from gitstore.model import MOST_PROBLEMS, Definition, Limits, Problem, Problems, Rules
from gitstore.names import DraftRef
from gitstore.policy import Command, Effect, Verdict
from gitstore.push.report import PushReport

LIMITS = Limits()
LONG = "k" * 200_000


def judged(value: dict[str, Any], name: str = "workflow.json") -> Definition:
    return document.parse(json.dumps(value).encode(), name, Rules.MESHHOOK, LIMITS)


def labelled(count: int) -> list[dict[str, Any]]:
    """Nodes without an error; each has two warnings."""
    return [
        {"id": f"n{n}", "type": "robot", "position": {}, "data": {"parentContainer": ""}}
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("errors", "warnings", "listed"),
    [(0, 3, (0, 3)), (2, 200, (2, 98)), (150, 60, (100, 0)), (100, 1, (100, 0)), (30, 70, (30, 70))],
)
def test_at_most_a_hundred_problems_are_listed(errors: int, warnings: int, listed: tuple[int, int]) -> None:
    """Errors before warnings where not all fit, in document order; all are counted."""
    every = [Problem("x", str(n), line=n, error=n % 2 == 1) for n in range(2 * max(errors, warnings))]
    some = [p for p in every if (p.line or 0) < 2 * (errors if p.error else warnings)]
    problems = Problems.of(some)
    assert (problems.errors, problems.warnings, problems.total) == (errors, warnings, errors + warnings)
    assert (sum(p.error for p in problems), sum(not p.error for p in problems)) == listed
    assert problems.more == errors + warnings - sum(listed)
    assert [p.line for p in problems] == sorted(p.line or 0 for p in problems)
    assert Problems.of(problems) is problems


@pytest.mark.parametrize("name", ["workflow.json", "workflow.yaml"])
def test_an_error_behind_many_warnings_is_listed_and_blocks(name: str) -> None:
    nodes = [*labelled(1_000), {"id": "last", "type": "delay", "data": {"label": "x", "config": {}}}]
    ways = [{"source": "n0", "target": node["id"]} for node in nodes[1:]]
    problems = judged({"nodes": nodes, "edges": ways}, name).problems
    assert not judged({"nodes": nodes, "edges": ways}, name).valid
    assert [p.node for p in problems if p.error] == ["last"]
    assert (len(problems), problems.errors, problems.warnings) == (MOST_PROBLEMS, 1, 2_001)


def test_a_cycle_of_any_length_is_one_problem() -> None:
    ways = [{"source": f"n{n}", "target": f"n{(n + 1) % 3_000}"} for n in range(3_000)]
    problems = judged({"nodes": labelled(3_000), "edges": ways}).problems
    assert [p.code for p in problems if p.error] == ["no_trigger", "cycle"]
    assert max(len(p.message) for p in problems) < 2_000


def test_a_pusher_sees_the_number_of_further_problems() -> None:
    """As many lines as HTTP lists problems, errors and warnings together."""
    report = PushReport(lambda slug, number: f"{slug}/{number}")
    definition = judged({"nodes": [{}] * 500})
    command = Command(b"refs/heads/drafts/a", None, b"a" * 40)
    report.conclude([Verdict(command, None, Effect.SAVE, DraftRef("a"), b"", definition)], {})
    problems = definition.problems
    assert f"a: {problems.errors} problems would block publishing" in report.lines
    assert f"  and {problems.errors - MOST_PROBLEMS} more" in report.lines
    assert len(report.lines) < MOST_PROBLEMS + 10


def test_expressions_are_parsed_up_to_a_limit() -> None:
    """Expressions beyond the limit are refused unread."""
    each = "a" * 10_000
    transform = {"type": "transform", "data": {"label": "x", "config": {"expression": each}}}
    count = MOST_EXPRESSIONS // len(each) + 2
    nodes = [{**transform, "id": f"n{n}"} for n in range(count)]
    refused = [p for p in judged({"nodes": nodes}).problems if p.code == "expression_invalid"]
    assert [p.node for p in refused] == [f"n{count - 2}", f"n{count - 1}"]
    assert all(f"{MOST_EXPRESSIONS:,}" in p.message for p in refused)


# Comparing


@pytest.mark.parametrize("rules", list(Rules))
@pytest.mark.parametrize(
    "values",
    [
        ({LONG: [0] * 500}, {LONG: [1] * 500}),
        ({LONG: {}}, {LONG: {str(n): n for n in range(500)}}),
        ({LONG: {str(n): n for n in range(500)}}, {LONG: {}, "x": 1}),
        ({LONG: list(range(500))}, {LONG: ["x"]}),
        ({"nodes": [{"id": "a", LONG: [0] * 500}]}, {"nodes": [{"id": "a", LONG: [1] * 500}]}),
    ],
)
def test_pointers_have_a_limit(values: tuple[dict[str, Any], dict[str, Any]], rules: Rules) -> None:
    """A long key above many changes is part of each pointer: 400 KB would be 100 MB."""
    a, b = values
    with pytest.raises(GitstoreError, match="Pointers") as caught:
        diff(a, b, rules)
    assert caught.value.code is Code.TOO_LARGE
    assert summary_of(a, b, rules) == TOO_MUCH


# The budget


def large() -> bytes:
    return json.dumps({"nodes": labelled(2_000)}).encode()


@pytest.mark.parametrize(
    "work",
    [
        lambda: document.parse(large(), "workflow.json", Rules.ANY, LIMITS),
        lambda: document.parse(large(), "workflow.yaml", Rules.MESHHOOK, LIMITS),
        lambda: document.parse_json(large(), LIMITS),
        lambda: diff({"nodes": labelled(500)}, {"nodes": labelled(600)}),
        lambda: text_diff(File("workflow.yaml", b"- a\n- b\n"), File("workflow.yaml", b"- c\n- b\n")),
    ],
)
def test_work_ends_with_its_budget(work: Any) -> None:
    """In parsing, checking and comparing; without a budget nothing is refused."""
    work()
    with pytest.raises(GitstoreError, match="GITSTORE_MAX_CPU") as caught, budget.limited(0):
        work()
    assert caught.value.code is Code.TOO_LARGE
    work()


def test_a_write_in_progress_is_completed() -> None:
    """A lifted budget refuses nothing; the next request has its own."""
    with budget.limited(0):
        with pytest.raises(GitstoreError):
            budget.check()
        budget.lift()
        budget.check()
    with budget.limited(0), pytest.raises(GitstoreError):
        budget.check()


@pytest.mark.parametrize("name", ["workflow.json", "workflow.yaml"])
def test_the_time_to_read_a_definition_grows_with_its_size(name: str) -> None:
    """Four times the nodes take less than eight times the CPU: the best of five runs of each in turn."""

    def seconds(raw: bytes) -> float:
        started = time.thread_time()
        document.parse(raw, name, Rules.MESHHOOK, Limits(definition=2 * len(raw)))
        return time.thread_time() - started

    small, large = (
        document.dump(chain(nodes, body="a text of some length, " * 20), name) for nodes in (275, 1_100)
    )
    runs = [(seconds(small), seconds(large)) for _ in range(5)]
    assert len(large) > 700_000
    assert min(large for _, large in runs) < 8 * min(small for small, _ in runs)


def chain(length: int, **config: str) -> dict[str, Any]:
    """A usual definition: calls, one after the other."""
    nodes = [
        {
            "id": f"call-{n}",
            "type": "httpCall",
            "position": {"x": n, "y": 40 * n},
            "data": {
                "label": f"Call service {n}",
                "config": {
                    "url": f"https://api.example.com/{n}?q={{{{input.id}}}}",
                    "method": "POST",
                    **config,
                },
            },
        }
        for n in range(length)
    ]
    edges = [{"id": f"e{n}", "source": f"call-{n - 1}", "target": f"call-{n}"} for n in range(1, length)]
    return {"name": "chain", "nodes": nodes, "edges": edges}


FLOATS = (0.0, -0.0, 1.5, -2.0, 1e16, 1e21, -1e22, 1e-6, 1e-7, 5e-324, 1.7976931348623157e308)
TEXTS = ("", "1.5", ",2.5e3", '"', "\\", '\\"0.5', "\n\x01\x7f", "é", "\ue000", "\uffff", "😀", "-0.5e7")


def test_canonical_json_is_that_of_rfc_8785() -> None:
    """Of floats, text that looks like them, and keys whose order differs in UTF-16 and in code points."""
    draw = random.Random(8785)  # noqa: S311
    for _ in range(500):
        keys = draw.sample(TEXTS, 5)
        value: Any = {
            key: draw.choice(
                [draw.choice(FLOATS), draw.choice(TEXTS), [draw.random(), 2**53 - 1, True, None]]
            )
            for key in keys
        }
        assert document.canonical(value, Rules.ANY) == rfc8785.dumps(value)
