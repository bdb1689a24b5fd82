"""Large pushes with concurrent writers: slices of a plain push, and the limit of an atomic one.

Most tests make slices small rather than pushes large; `-m soak` pushes the full sizes.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
from dulwich.objects import Commit
from dulwich.protocol import pkt_line

from gitstore import budget, ledger, names
from gitstore.changes import Authorship, Prepared
from gitstore.drafts import Content
from gitstore.errors import Code, GitstoreError, UnavailableError
from gitstore.git.cleanup import sweep
from gitstore.git.objects import WritableObjects
from gitstore.model import Definition, LedgerEntry
from gitstore.policy_facts import RepositoryFacts
from gitstore.push.receive import Receiver
from gitstore.push.report import PushReport
from gitstore.store import Store
from sync import rows
from sync.integrity import verify
from sync.reconcile import reconcile
from sync.unit_of_work import MirrorUnitOfWork
from tests.sync.conftest import House
from tests.sync.kill_points import Killer
from tests.sync.large_push import ANN, LargePush, push

MANY = [f"w-{number:04}" for number in range(130)]


@pytest.fixture
def tmp_path(ram_path: Path) -> Path:
    return ram_path


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gitstore.push.request.MOST_WORKFLOWS", 4)
    monkeypatch.setattr("gitstore.push.request.MOST_COMMANDS", 8)
    monkeypatch.setattr("gitstore.push.writer._TOGETHER", 2)


class Watched:
    """A `UnitOfWork` that records the workflows of each unit of work; `before` is called as each begins."""

    def __init__(self, writes: MirrorUnitOfWork, before: Callable[[int], None] = lambda _: None) -> None:
        self._writes = writes
        self._before = before
        self.taken: list[list[str]] = []

    @contextmanager
    def begin(self, slugs: Collection[str], release: str | None = None) -> Iterator[None]:
        self._before(len(self.taken))
        self.taken.append(list(slugs))
        with self._writes.begin(slugs, release):
            yield

    def maintenance(self) -> AbstractContextManager[None]:
        return self._writes.maintenance()


def another(house: House) -> Store:
    """Open the project as another process would."""
    unit_of_work = partial(MirrorUnitOfWork, house.database)
    return Store(house.store.path, house.project, unit_of_work, clock=house.store.clock)


def draft_of(slug: str) -> str:
    return names.show(names.draft(slug))


def check_sound(house: House) -> None:
    with closing(house.unmirrored()) as store:
        assert list(verify.verify(house.database, store)) == []
    assert house.writes.markers.pending() == {}
    house.git("fsck", "--strict", "--no-dangling")


def test_a_plain_push_takes_64_workflows_at_a_time_in_order(house: House) -> None:
    watched = Watched(house.writes)
    house.store.unit_of_work = watched
    results = push(house.store, LargePush().drafts(reversed(MANY)).request())
    assert set(results.values()) == {"ok"}
    assert watched.taken == [MANY[:64], MANY[64:128], MANY[128:]]
    assert [row["slug"] for row in sorted(house.rows("workflows"), key=lambda row: row["slug"])] == MANY
    assert len(house.rows("events")) == len(MANY)
    check_sound(house)


def test_each_slice_is_committed_before_the_next_begins(
    house: House, small_slices: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    house.store.unit_of_work = Watched(house.writes, lambda _: rows.append(len(house.rows("workflows"))))
    push(house.store, LargePush().drafts(MANY[:10]).request())
    assert rows == [0, 4, 8]


def test_the_work_on_a_ledger_grows_with_the_number_of_versions(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = 0

    def counted(commit: Commit) -> LedgerEntry:
        nonlocal parsed
        parsed += 1
        return parse(commit)

    parse = ledger.parse
    monkeypatch.setattr(ledger, "parse", counted)
    for slug, count in (("a", 60), ("b", 120)):
        large = LargePush()
        large.versions(slug, count)
        parsed = 0
        assert set(push(house.store, large.request()).values()) == {"ok"}
        assert parsed < 4 * count


def test_many_versions_of_one_workflow_go_in_slices_and_leave_the_named_draft_alone(
    house: House, small_slices: None
) -> None:
    large = LargePush()
    commits = large.versions("a", 20)
    large.put(names.draft("a"), commits[2])
    watched = Watched(house.writes)
    house.store.unit_of_work = watched
    assert set(push(house.store, large.request(backwards=True)).values()) == {"ok"}
    assert watched.taken == [["a"]] * 3
    assert sorted(house.store.version_tags("a")) == list(range(1, 21))
    assert house.store.refs.read(names.draft("a")) == commits[2]
    published = [row for row in house.rows("events") if row["type"] == "workflow.version.published"]
    assert len(published) == 20
    check_sound(house)


def test_a_refusal_before_any_lock_concerns_that_ref_alone(house: House, small_slices: None) -> None:
    large = LargePush().drafts(MANY[:9])
    large.put(b"refs/heads/main", large.commit("x"))
    large.put(names.tag("w-0003", 7), large.commit("y"))
    results = push(house.store, large.request())
    assert results.pop("refs/heads/main") == "ref_not_accepted"
    assert results.pop("refs/tags/w-0003/v7") == "wrong_number"
    assert set(results.values()) == {"ok"}
    check_sound(house)


def test_a_refusal_in_any_slice_leaves_every_draft_that_the_push_would_discard(
    house: House, small_slices: None
) -> None:
    kept = house.save("a")
    large = LargePush().drafts(MANY[:9])
    large.put(names.draft("a"), b"0" * 40, kept.encode())
    large.put(names.tag("w-0008", 7), large.commit("y"))
    results = push(house.store, large.request())
    assert results.pop(draft_of("a")) == "discard_not_alone"
    assert house.store.refs.read(names.draft("a")) == kept.encode()
    assert [results[draft_of(slug)] for slug in MANY[:9]] == ["ok"] * 9
    check_sound(house)


def test_a_draft_that_moves_between_the_check_and_its_slice_is_stale(
    house: House, small_slices: None
) -> None:
    beside = another(house)

    def meanwhile(number: int) -> None:
        if number == 1:
            beside.create_workflow(MANY[5], Content(value=house.definition()), house.who)

    house.store.unit_of_work = Watched(house.writes, meanwhile)
    results = push(house.store, LargePush().drafts(MANY[:9]).request())
    beside.close()
    assert results.pop(draft_of(MANY[5])) == "stale_draft"
    assert set(results.values()) == {"ok"}
    check_sound(house)


@pytest.mark.parametrize("size", [3, 9])
def test_a_workflow_whose_rows_contradict_git_does_not_stop_others(
    house: House, small_slices: None, size: int
) -> None:
    house.publish(MANY[1])
    house.tamper("update gitstore.workflows set latest_number = 9")
    slugs = [MANY[0], *MANY[2 : size + 1]]
    large = LargePush().drafts(slugs)
    large.put(names.draft(MANY[1]), large.commit("new"), house.store.refs.read(names.draft(MANY[1])) or b"")
    large.put(names.tag(MANY[1], 2), large.commit("new"))
    results = push(house.store, large.request())
    assert {results[draft_of(slug)] for slug in slugs} == {"ok"}
    assert "ok" not in {results[draft_of(MANY[1])], results[f"refs/tags/{MANY[1]}/v2"]}


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.BUSY])
def test_a_fault_between_slices_leaves_the_finished_ones_and_is_the_reason_of_the_rest(
    house: House, small_slices: None, code: Code
) -> None:
    def fail(number: int) -> None:
        if number == 2:
            raise GitstoreError(code, "not now")

    request = LargePush().drafts(MANY[:12]).request()
    house.store.unit_of_work = Watched(house.writes, fail)
    results = push(house.store, request)
    assert [results[draft_of(slug)] for slug in MANY[:12]] == ["ok"] * 8 + [code.value] * 4
    assert list(house.store.refs.below(names.DRAFTS)) == [names.draft(slug) for slug in MANY[:8]]
    house.store.unit_of_work = house.writes
    assert set(push(house.store, request).values()) == {"ok"}
    check_sound(house)


def test_what_names_no_workflow_or_is_named_twice_is_refused_beside_slices(
    house: House, small_slices: None
) -> None:
    large = LargePush().drafts(MANY[:20])
    large.put(b"refs/heads/main", large.commit("other"))
    twice = names.draft(MANY[3])
    line = pkt_line(b" ".join((*large.refs[twice], twice)))
    results = push(house.store, large.request().replace(line, line + line))
    assert results.pop("refs/heads/main") == "ref_not_accepted"
    assert results.pop(draft_of(MANY[3])) == "ref_not_accepted"
    assert set(results.values()) == {"ok"}
    assert len(results) == 19
    check_sound(house)


def spin(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_all_slices_share_the_budget_of_the_request(
    house: House, small_slices: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write lifts it for itself, is not counted, and is complete; what is then too much is refused."""
    read = RepositoryFacts.definition

    def slow(facts: RepositoryFacts, commit: bytes, slug: str) -> Definition:
        spin(0.1)
        return read(facts, commit, slug)

    monkeypatch.setattr(RepositoryFacts, "definition", slow)
    monkeypatch.setattr(budget, "_EVERY", 1)
    house.store.unit_of_work = Watched(house.writes, lambda _: spin(1))
    with budget.limited(1.5):
        results = push(house.store, LargePush().drafts(MANY[:40]).request())
    found = [results[draft_of(slug)] for slug in MANY[:40]]
    accepted = found.count("ok")
    assert 8 <= accepted <= 15
    assert found == ["ok"] * accepted + ["too_large"] * (40 - accepted)
    check_sound(house)


def test_a_full_disk_between_slices_leaves_the_finished_ones(
    house: House, small_slices: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it is found before the locks of the next slices are taken."""
    write, calls = Prepared.write, iter(range(9))

    def full(prepared: Prepared, objects: WritableObjects) -> None:
        if next(calls) == 1:
            raise OSError(errno.ENOSPC, "full")
        write(prepared, objects)

    monkeypatch.setattr(Prepared, "write", full)
    results = push(house.store, LargePush().drafts(MANY[:20]).request())
    assert [results[draft_of(slug)] for slug in MANY[:20]] == ["ok"] * 8 + ["unavailable"] * 12
    check_sound(house)


def test_the_changes_of_the_first_versions_of_a_push_are_summarized(
    house: House, small_slices: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The definitions of the others are not kept, which would take much memory."""
    monkeypatch.setattr("gitstore.push.writer._WITH_CONTENT", 5)
    large = LargePush()
    large.versions("a", 12)
    report = PushReport(lambda *_: "http://x/")
    receiver = Receiver(house.store, Authorship(ANN, house.store.clock()), lambda *_: None, report)
    receipt = receiver.receive(BytesIO(large.request()).read)
    assert [verdict.refusal for verdict in receipt.verdicts] == [None] * 12
    assert [bool(v.definition and v.definition.value) for v in receipt.verdicts] == [True] * 5 + [False] * 7
    assert [line for line in report.lines if "label" in line] == report.lines[1:5]
    assert report.lines[11] == "published a v12: http://x/"
    check_sound(house)


def test_without_a_database_the_whole_push_is_refused(house: House, small_slices: None) -> None:
    def fail(_: int) -> None:
        raise UnavailableError("not now")

    house.store.unit_of_work = Watched(house.writes, fail)
    with pytest.raises(GitstoreError) as refused:
        push(house.store, LargePush().drafts(MANY[:9]).request())
    assert refused.value.code is Code.UNAVAILABLE
    assert house.store.refs.below(names.PREFIX) == {}


def test_after_a_kill_between_slices_the_same_push_completes(
    house: House, conninfo: str, tmp_path: Path
) -> None:
    path = tmp_path / "push"
    path.write_bytes(LargePush().drafts(MANY).request())
    write = {"kind": "push", "slug": "", "request": str(path)}
    with closing(Killer(house.store.path, house.project, conninfo)) as killer:
        assert killer.write(write, "unmarked>", 1)["killed"]
        assert list(house.store.refs.below(names.DRAFTS)) == [names.draft(slug) for slug in MANY[:64]]
        assert len(house.rows("workflows")) == 64
        # Again, in the middle of a slice, between its refs and its rows.
        assert killer.write(write, "refs>", 1)["killed"]
        sweep(house.store.path, house.writes.maintenance, time.time() + 3600, sleep=lambda _: None)
        assert reconcile(house.writes).failures == {}
        assert killer.write(write)["ended"] == ["ok"] * len(MANY)
    assert len(house.rows("events")) == len(MANY)
    check_sound(house)


def test_two_large_pushes_at_once_in_opposite_order_do_not_deadlock(house: House, small_slices: None) -> None:
    """They write the same workflows: of each, one push wins, and the other is stale."""
    requests = [
        LargePush().drafts(MANY[:24], "forwards").request(),
        LargePush().drafts(MANY[:24], "backwards").request(backwards=True),
    ]
    stores = [another(house), another(house)]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(push, stores, requests))
    for store in stores:
        store.close()
    for slug in MANY[:24]:
        assert sorted(answer[draft_of(slug)] for answer in answers) == ["ok", "stale_draft"]
    check_sound(house)


def test_saves_during_a_large_push_succeed(house: House, small_slices: None) -> None:
    """Saves to a workflow of the push and to another one."""
    for slug in ("beside", MANY[20]):
        house.save(slug)
    done = threading.Event()
    saves: list[str] = []

    def save(slug: str) -> None:
        store = another(house)
        try:
            while not done.is_set() or slug not in saves:
                content = Content(value=house.definition(f"https://{len(saves)}.example/"))
                store.save_draft(slug, content, house.who, expected="*")
                saves.append(slug)
        finally:
            store.close()

    large = LargePush().drafts(MANY[:40])
    large.put(
        names.draft(MANY[20]), large.commit("late"), house.store.refs.read(names.draft(MANY[20])) or b""
    )
    store = another(house)
    with ThreadPoolExecutor(2) as pool:
        savers = [pool.submit(save, slug) for slug in ("beside", MANY[20])]
        results = push(store, large.request())
        done.set()
        for saver in savers:
            saver.result()
    store.close()
    assert results.pop(draft_of(MANY[20])) in ("stale_draft", "not_fast_forward")
    assert set(results.values()) == {"ok"}
    check_sound(house)


def test_a_large_push_follows_the_number_marks(house: House) -> None:
    """A number that was assigned before a restore is refused, and the one above it is published."""
    with house.database.as_mirror() as tx:
        rows.raise_mark(tx, house.store, "w-0007", 6)
        rows.raise_mark(tx, house.store, "w-0008", 6)
    house.store.floors.clear()
    large = LargePush().drafts(MANY)
    large.put(names.tag("w-0007", 7), large.commit("w-0007"))
    large.put(names.tag("w-0008", 1), large.commit("w-0008"))
    results = push(house.store, large.request())
    assert results.pop("refs/tags/w-0008/v1") == "wrong_number"
    assert set(results.values()) == {"ok"}


def test_an_atomic_push_of_200_workflows_is_one_unit_of_work(house: House) -> None:
    large = LargePush()
    tip = large.commit("all")
    slugs = [f"a-{number:03}" for number in range(200)]
    for slug in slugs:
        large.put(names.draft(slug), tip)
    watched = Watched(house.writes)
    house.store.unit_of_work = watched
    assert set(push(house.store, large.request(atomic=True)).values()) == {"ok"}
    assert watched.taken == [slugs]
    check_sound(house)


def test_an_atomic_push_of_201_is_refused_with_the_limit_and_advice(house: House) -> None:
    large = LargePush()
    tip = large.commit("all")
    for number in range(201):
        large.put(names.draft(f"a-{number:03}"), tip)
    house.store.unit_of_work = watched = Watched(house.writes)
    assert set(push(house.store, large.request(atomic=True)).values()) == {"too_large"}
    assert watched.taken == []
    assert house.store.refs.below(names.PREFIX) == {}
    assert list((house.store.path / "objects").glob("??/*")) == []
    assert set(push(house.store, large.request()).values()) == {"ok"}


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shape", ["drafts", "versions of one", "a version of each"])
def test_the_full_sizes(house: House, shape: str, capsys: pytest.CaptureFixture[str]) -> None:
    large = LargePush()
    match shape:
        case "drafts":
            large.drafts(f"w-{number:05}" for number in range(5000))
        case "versions of one":
            large.versions("a", 10_000)
        case _:
            for number in range(10_000):
                large.versions(f"w-{number:05}", 1)
    request = large.request()
    done = threading.Event()
    slowest = 0.0

    def save() -> None:
        nonlocal slowest
        with closing(another(house)) as store:
            while not done.is_set():
                began = time.monotonic()
                store.create_workflow(f"beside-{began}".replace(".", "-"), None, house.who)
                slowest = max(slowest, time.monotonic() - began)

    with ThreadPoolExecutor(1) as pool:
        saver = pool.submit(save)
        began = time.monotonic()
        results = push(house.store, request)
        took = time.monotonic() - began
        done.set()
        saver.result()
    assert set(results.values()) == {"ok"}
    check_sound(house)
    with capsys.disabled():
        print(f"\n  {len(results)} refs, {shape}: {took:.1f} s; slowest write beside it {slowest:.2f} s")
