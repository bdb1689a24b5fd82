"""Two instances: workflows are published on one, and the other follows it by webhooks and git."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from service.metrics import COUNTERS, MEASURED
from tests.helpers import until
from tests.stories.instance import Author, Caller, Service, contents, definition, everything

LOOPBACK = {"GITSTORE_EGRESS_ALLOW": "127.0.0.0/8"}


@dataclass
class Pair:
    """An upstream with an author, and a follower with its owner."""

    upstream: Service
    follower: Service
    there: Caller
    here: Caller
    author: Author

    def follow(self, **body: Any) -> dict[str, Any]:
        """Create the follower's source, and a subscription of the upstream to its webhook URL."""
        url = f"{self.upstream.url}/{self.there.project}.git"
        created = self.here.call("POST", "/sources", {"url": url, "credential": self.there.token, **body})
        assert created.status == 201, created.raw
        hook = created.json["webhook"]["url"]
        subscribed = self.there.call("POST", "/subscriptions", {"url": hook})
        assert subscribed.status == 201, subscribed.raw
        path = f"/sources/{created.json['id']}"
        secret = subscribed.json["secret"]
        assert self.here.call("PATCH", path, {"secret": secret}).status == 200
        until(lambda: self.source(created.json["id"])["state"] == "ok", "the first sync did not succeed")
        return dict(created.json)

    def source(self, id_: str) -> dict[str, Any]:
        return dict(self.here.get(f"/sources/{id_}").json)

    def publish(self, slug: str, number: int, url: str) -> None:
        self.author.draft(slug, definition(f"Version {number}", url))
        self.author.tag(slug, number)
        pushed = self.author.push(f"drafts/{slug}", f"{slug}/v{number}")
        assert pushed.ok, pushed.output


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory, cluster: Path) -> Iterator[tuple[Service, Service]]:
    folder = tmp_path_factory.mktemp("pair")
    pair = tuple(Service(folder / name, LOOPBACK, cluster).start() for name in ("upstream", "follower"))
    yield pair[0], pair[1]
    assert [service.stop() for service in pair] == [0, 0]


@pytest.fixture
def pair(services: tuple[Service, Service], tmp_path: Path, request: pytest.FixtureRequest) -> Pair:
    upstream, follower = services
    slug = request.node.name.replace("_", "-")[-60:].strip("-")
    there, here = upstream.project(slug), follower.project(slug)
    return Pair(upstream, follower, there, here, there.author(tmp_path / "author"))


def test_a_version_published_upstream_is_imported_at_once(pair: Pair) -> None:
    """With the same bytes, tag, actor and message."""
    pair.follow()
    pair.publish("order-sync", 1, "https://one.example/")
    published = time.monotonic()
    path = "/workflows/order-sync/versions/1"
    answer = until(lambda: (found := pair.here.get(path)).status == 200 and found, "it did not come")
    seconds = time.monotonic() - published
    assert pair.here.definition("order-sync", 1) == pair.there.definition("order-sync", 1)
    ours, theirs = answer.json, pair.there.get(path).json
    for same in ("commit", "digest", "message", "author"):
        assert ours[same] == theirs[same]
    assert ours["published_by"].startswith("source:127.0.0.1:")
    assert pair.here.get("/workflows/order-sync/versions/current").json["version_number"] == 1
    assert seconds < 20  # 2 s is the bar, on a machine that does nothing else (bench)


def test_an_owner_decides_on_a_diverged_draft(pair: Pair) -> None:
    """Shown with both ids; either decision keeps the work of both sides."""
    source = pair.follow(drafts=True)
    pair.author.draft("order-sync", definition("Theirs", "https://one.example/"))
    pair.author.push("drafts/order-sync")
    draft = "/workflows/order-sync/versions/draft"
    until(lambda: pair.here.get(draft).status == 200, "the draft did not come")
    mine = definition("Mine", "https://mine.example/").encode()
    saved = pair.here.call("PUT", draft, mine, headers={"If-Match": "*", "Content-Type": "application/yaml"})
    assert saved.status == 200, saved.raw
    theirs = pair.author.draft("order-sync", definition("Theirs", "https://two.example/"))
    pair.author.push("drafts/order-sync")

    def shown() -> list[dict[str, Any]]:
        return list(pair.source(source["id"])["divergences"])

    (one,) = until(shown, "the divergence was not shown")
    assert (one["ref"], one["theirs"], one["code"]) == (
        "refs/heads/drafts/order-sync", theirs, "not_fast_forward",
    )  # fmt: skip
    assert pair.here.definition("order-sync", "draft") == mine
    path = f"/sources/{source['id']}/divergences/{one['id']}/resolve"
    assert pair.here.call("POST", path, {"take": "theirs"}).json["decision"] == "theirs"
    until(lambda: not shown(), "the decision was not carried out")
    assert b"two.example" in pair.here.definition("order-sync", "draft")
    kept = pair.here.author(pair.author.folder.parent / "mine")
    kept.git("fetch", "-q", "origin", "refs/superseded/*:refs/superseded/*")
    assert one["ours"] in kept.git("for-each-ref", "--format=%(objectname)", "refs/superseded")


def test_real_actions_move_every_counter(pair: Pair) -> None:
    """Of upstream: requests, pushes, publications and deliveries. Of the follower: syncs and divergences."""
    pair.follow()
    pair.publish("order-sync", 1, "https://one.example/")
    assert not pair.author.push(f"{pair.author.draft('refunds', '{}')}:refs/tags/refunds/v1").ok
    until(lambda: pair.here.get("/workflows/order-sync/versions/1").status == 200, "it did not come")
    for caller in (pair.here, pair.there):  # publish different versions of one number
        body = {"slug": "returns", "definition": definition(caller.url)}
        assert caller.call("POST", "/workflows", body).status == 201
        assert caller.call("POST", "/workflows/returns/versions/publish", {}).status == 201
    item = {"workflow": "returns", "version": 1}
    assert pair.there.call("PUT", "/environments", {"environments": [{"name": "qa"}]}).status == 200
    assert pair.there.call("PUT", "/workflows/returns/environments/qa", {"version": 1}).status == 200
    assert pair.there.call("POST", "/releases", {"name": "first", "items": [item]}).status == 201
    expected = {
        pair.there: (
            'gitstore_environment_moves_total{door="http",outcome="moved"}',
            'gitstore_releases_total{door="http",outcome="released"}',
            'gitstore_requests_total{area="git.push",method="POST",status="2xx"}',
            'gitstore_request_duration_seconds_count{area="git.push"}',
            'gitstore_heavy_requests_total{outcome="immediate"}',
            'gitstore_publishes_total{door="git",outcome="published"}',
            'gitstore_publishes_total{door="git",outcome="definition_invalid"}',
            'gitstore_publishes_total{door="http",outcome="published"}',
            'gitstore_pushes_total{outcome="ok"}',
            'gitstore_pushes_total{outcome="refused"}',
            'gitstore_delivery_attempts_total{outcome="succeeded"}',
        ),
        pair.here: (
            'gitstore_publishes_total{door="source",outcome="published"}',
            'gitstore_source_syncs_total{outcome="ok"}',
            'gitstore_divergences_total{code="',
        ),
    }
    for caller, series in expected.items():
        for name in series:
            until(partial(counted, caller, name), f"{name} did not move")
    assert COUNTERS.keys() <= {name.partition("{")[0] for series in expected.values() for name in series}
    shown = pair.here.get("/metrics").raw.decode()
    assert [name for name in MEASURED if f"\n{name}" not in shown] == ["gitstore_replica_lag_seconds"]


def counted(caller: Caller, series: str) -> bool:
    lines = caller.get("/metrics").raw.decode().splitlines()
    return any(line.startswith(series) and float(line.rpartition(" ")[2]) > 0 for line in lines)


def test_versions_are_synced_in_both_directions(pair: Pair) -> None:
    pair.follow(direction="both")
    body = {"slug": "refunds", "definition": definition("Refunds")}
    assert pair.here.call("POST", "/workflows", body).status == 201
    assert pair.here.call("POST", "/workflows/refunds/versions/publish", {"message": "Begin"}).status == 201
    answer = until(
        lambda: (found := pair.there.get("/workflows/refunds/versions/1")).status == 200 and found,
        "the version was not pushed",
    )
    assert answer.json["commit"] == pair.here.get("/workflows/refunds/versions/1").json["commit"]
    assert answer.json["message"] == "Begin"


def test_secrets_of_sources_and_subscriptions_are_written_nowhere(pair: Pair) -> None:
    """Not in events, logs, refs, reflogs, configuration, rows, arguments or responses."""
    source = pair.follow(direction="both")
    pair.publish("order-sync", 1, "https://one.example/")
    path = "/workflows/order-sync/versions/1"
    until(lambda: pair.here.get(path).status == 200, "it did not come")
    body = {"slug": "refunds", "definition": definition("Refunds")}
    pair.here.call("POST", "/workflows", body)
    pair.here.call("POST", "/workflows/refunds/versions/publish")
    until(lambda: pair.there.get("/workflows/refunds/versions/1").status == 200, "it was not pushed")
    rotated = pair.there.get("/subscriptions").json["subscriptions"][0]["id"]
    secrets = [
        *(pair.there.token, pair.here.token, source["webhook"]["secret"]),
        pair.there.call("POST", f"/subscriptions/{rotated}/rotate").json["secret"],
    ]
    answers = [
        pair.here.get(f"/sources/{source['id']}").raw,
        *(pair.there.get(path).raw for path in ("/subscriptions", "/deliveries")),
    ]
    for service in (pair.upstream, pair.follower):
        with service.owning() as tx:
            answers += [rows.encode() for rows in everything(tx)]
        answers.append(service.log().encode())
        answers.append(service.arguments().encode())
        answers += [content for _, content in contents(service.data / "repos")]
    for secret in secrets:
        assert secret
        assert not [answer for answer in answers if secret.encode() in answer], secret


def test_the_operator_adds_and_syncs_a_source(pair: Pair, tmp_path: Path) -> None:
    """At the terminal, beside the running service."""
    for number in (1, 2):
        pair.publish("order-sync", number, f"https://{number}.example/")
    token = tmp_path / "token"
    token.write_text(pair.there.token + "\n")
    url = f"{pair.upstream.url}/{pair.there.project}.git"
    project = pair.here.project
    output = pair.follower.cli("source", "add", project, url, "--credential-file", str(token)).stdout
    assert f"URL     {pair.follower.url.rsplit(':', 1)[0]}" in output
    assert "secret  whsec_" in output
    assert pair.there.token not in output
    until(
        lambda: pair.here.get("/workflows/order-sync/versions/2").status == 200,
        "the version was not imported",
    )
    until(
        lambda: "nothing new" in pair.follower.cli("source", "sync", project).stdout, "the sync did not end"
    )
    shown = pair.follower.cli("source", "list", project).stdout
    assert "pull" in shown
    assert url in shown
    refused = pair.follower.cli("source", "add", project, "ext::sh -c id", check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: a source is an http:// or https:// URL")
    assert "Traceback" not in refused.stderr


def test_the_worker_ends_promptly_during_a_sync(tmp_path: Path, cluster: Path) -> None:
    """The upstream does not respond; the next worker tries again."""
    service = Service(tmp_path / "data", LOOPBACK, cluster).start()
    owner = service.project("quick")
    # The listen queue accepts the connection, and nothing answers.
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.git"
        created = owner.call("POST", "/sources", {"url": url})
        path = f"/sources/{created.json['id']}"
        until(lambda: owner.get(path).json["tried_at"], "it was not tried")
        started = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - started < 15
