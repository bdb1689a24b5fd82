"""Row-level security of subscriptions and deliveries against other tenants and members who are not owners."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import LiteralString
from uuid import uuid4

import pytest

from gitstore.errors import Code, GitstoreError
from sync.db import Claims, user_claims
from tests.sync.conftest import House
from tests.webhooks.subscribed_project import Post
from webhooks import delivery_log, delivery_queue

COUNTS: dict[str, LiteralString] = {
    "subscriptions": "select count(*) from gitstore.subscriptions",
    "subscription_secrets": "select count(id) from gitstore.subscription_secrets",
    "deliveries": "select count(*) from gitstore.deliveries",
    "delivery_attempts": "select count(*) from gitstore.delivery_attempts",
}


@pytest.fixture
def theirs(make_house: Callable[..., House]) -> Iterator[Post]:
    """A project with a subscription, a delivery and an attempt."""
    house = make_house("theirs")
    post = Post(house, "")
    made, _ = post.subscribe("http://10.0.0.1/secret-path")
    with post.database.as_user(house.claims) as tx:
        delivery_log.test(tx, made)
    post.send_due()
    yield post
    house.store.close()


@pytest.fixture
def stranger(make_house: Callable[..., House]) -> Iterator[Claims]:
    house = make_house("ours")
    yield house.claims
    house.store.close()


@pytest.fixture
def viewer(theirs: Post) -> Claims:
    user = uuid4()
    theirs.house.tamper(
        "insert into gitstore.members (project_id, user_id, role) "
        "values (%(project)s, %(user)s, 'publisher')",
        project=theirs.house.project,
        user=user,
    )
    return user_claims(user)


@pytest.mark.parametrize("table", COUNTS)
def test_only_owners_can_read(theirs: Post, stranger: Claims, viewer: Claims, table: str) -> None:
    """The URL of a webhook is often a secret."""
    seen = []
    for claims in (theirs.house.claims, stranger, viewer, {}):
        with theirs.database.reading(claims) as tx:
            seen.append(tx.value(COUNTS[table]))
    assert seen == [1, 0, 0, 0]


CHANGES: list[LiteralString] = [
    "update gitstore.subscriptions set url = 'http://evil.example/'",
    "update gitstore.subscription_secrets set retires_at = now()",
    "update gitstore.deliveries set state = 'pending', ended_at = null, due_at = now()",
]
REFUSED: list[LiteralString] = [
    "insert into gitstore.subscriptions (project_id, url, events) values (%(project)s, 'http://a.b/', '{x}')",
    "insert into gitstore.subscription_secrets (id, subscription_id, project_id, sealed) "
    "select gen_random_uuid(), %(subscription)s, %(project)s, 'x'",
    "insert into gitstore.deliveries (project_id, subscription_id, event_id, type) "
    "values (%(project)s, %(subscription)s, gen_random_uuid(), 'x')",
    "insert into gitstore.delivery_attempts (delivery_id, number, project_id, url, started_at, duration_ms) "
    "select gen_random_uuid(), 1, %(project)s, 'x', now(), 1",
    "delete from gitstore.subscription_secrets",
    "delete from gitstore.deliveries",
    "delete from gitstore.subscriptions",
    "update gitstore.delivery_attempts set status = 200",
    "select count(*) from gitstore.event_queue",
    "select sealed from gitstore.subscription_secrets",
    "truncate gitstore.deliveries",
]


@pytest.mark.parametrize("statement", CHANGES)
def test_only_owners_can_write(
    theirs: Post, stranger: Claims, viewer: Claims, statement: LiteralString
) -> None:
    for claims in (stranger, viewer, {}):
        with theirs.database.as_user(claims) as tx:
            assert tx.run(statement) == 0


@pytest.mark.parametrize("statement", REFUSED)
def test_forbidden_statements_are_refused(
    theirs: Post, stranger: Claims, viewer: Claims, statement: LiteralString
) -> None:
    """Rows of another project, changes of attempts, and sealed columns."""
    subscription = theirs.rows("subscriptions")[0]["id"]
    for claims in (stranger, viewer, {}):
        with pytest.raises(GitstoreError) as caught, theirs.database.as_user(claims) as tx:
            tx.run(statement, project=theirs.house.project, subscription=subscription)
        assert caught.value.code is Code.FORBIDDEN


def test_a_delivery_cannot_name_a_subscription_of_another_project(
    theirs: Post, make_house: Callable[..., House]
) -> None:
    ours = make_house("ours")
    subscription = theirs.rows("subscriptions")[0]["id"]
    with pytest.raises(GitstoreError), theirs.database.as_user(ours.claims) as tx:
        tx.run(
            "insert into gitstore.deliveries (project_id, subscription_id, event_id, type, due_at) "
            "values (%(project)s, %(subscription)s, gen_random_uuid(), 'x', now())",
            project=ours.project,
            subscription=subscription,
        )
    with theirs.database.as_mirror() as tx:
        assert delivery_queue.lag(tx) == 0
    ours.store.close()


def test_attempts_are_immutable(theirs: Post) -> None:
    """Even for the tables' owner, unless done deliberately."""
    statements: list[LiteralString] = [
        "update gitstore.delivery_attempts set status = 200",
        "delete from gitstore.delivery_attempts",
        "truncate gitstore.delivery_attempts",
    ]
    for statement in statements:
        with pytest.raises(GitstoreError) as caught, theirs.database.as_owner() as tx:
            tx.run(statement)
        assert caught.value.code is Code.INTEGRITY
