"""Limits of the cost of one request, and of the problems that an answer lists."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from service.app import create_app
from tests.service.api.conftest import Client, House, definition, problem

MANY: dict[str, Any] = {"nodes": [{}] * 2_000}


def test_every_answer_lists_a_hundred_problems_and_counts_all(owner: Client) -> None:
    """Validation, creation, saving and errors."""
    owner.create()
    draft = "/workflows/order-sync/versions/draft"
    answers = [
        owner.post("/workflows/order-sync/validate", json={"definition": MANY}),
        owner.post("/workflows", json={"slug": "many", "definition": MANY}),
        owner.put(draft, json={"definition": MANY}, match="*"),
        owner.post("/workflows/order-sync/versions/publish", json={}),
        owner.post("/workflows", json={"slug": "x", **{f"k{n}": 1 for n in range(2_000)}}),
    ]
    assert [answer.status_code for answer in answers] == [200, 201, 200, 422, 400]
    for answer in answers:
        assert len(answer.json["problems"]) == 100
        assert answer.json["problems_total"] >= 2_000
        assert len(answer.data) < 60_000


def test_a_request_has_a_budget_of_cpu_time(house: House, owner: Client) -> None:
    """The error names the setting, and nothing is left behind."""
    owner.create()
    before = owner.get("/workflows/order-sync").json
    spent = replace(house.config, limits=replace(house.config.limits, cpu=0))
    hurried = Client(create_app(spent, database=house.database), owner.token)
    body = {"definition": definition("https://b.example/")}
    refused = [
        hurried.post("/workflows/order-sync/validate", json=body),
        hurried.put("/workflows/order-sync/versions/draft", json=body, match="*"),
    ]
    for answer in refused:
        assert "GITSTORE_MAX_CPU" in problem(answer, 413, "too_large")["detail"]
    assert owner.get("/workflows/order-sync").json == before
