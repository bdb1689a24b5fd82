"""Versions that are yanked and annotated, and workflows that are archived, on a real repository."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gitstore import names, pointers, releases, states
from gitstore.environments import EnvironmentRule
from gitstore.errors import Code
from gitstore.model import Environment, LedgerKind
from gitstore.releases import Wanted
from gitstore.store import ANY, Store
from tests.gitstore.test_store import ANN, _sound, publish, refusal, store, yaml

__all__ = ["_sound", "store"]

SLUG = "order-sync"


@pytest.fixture
def published(store: Store) -> Store:
    """Three versions; v3 is current."""
    for label in ("one", "two", "three"):
        publish(store, SLUG, label)
    return store


def test_nothing_new_selects_a_yanked_version_and_its_pointers_stay(published: Store) -> None:
    """A yank lists the pointers on the version; moves refuse it with the reason until it is taken back."""
    assert states.yank(published, SLUG, 3, ANN, reason="It loses orders") == ["current"]
    state = published.state(SLUG)
    assert (state.current, state.latest, state.next_number, state.yanked) == (3, 3, 4, (3,))
    assert states.newest_usable(published, state) == 2
    published.move_current(SLUG, 2, ANN)
    error = refusal(published.move_current, SLUG, 3, ANN)
    assert error.code is Code.VERSION_UNUSABLE
    assert "It loses orders" in error.message

    before = published.state(SLUG).ledger
    assert states.yank(published, SLUG, 3, ANN, reason="Again") == []
    assert published.state(SLUG).ledger == before

    states.unyank(published, SLUG, 3, ANN, reason="Only on Mondays")
    published.move_current(SLUG, 3, ANN)
    assert published.state(SLUG).yanked == ()
    assert states.yank_of(published, SLUG, 3) is None


def test_a_publication_and_its_base_count_yanked_versions(published: Store) -> None:
    """The next number follows a yanked version, which stays the base of the next draft."""
    states.yank(published, SLUG, 3, ANN, reason="Bad")
    assert publish(published, SLUG, "four") == 4
    state = published.state(SLUG)
    assert (state.current, state.yanked) == (4, (3,))
    states.yank(published, SLUG, 1, ANN, reason="Old")
    assert published.state(SLUG).yanked == (1, 3)


def test_all_versions_may_be_yanked_and_each_yank_needs_a_reason(published: Store) -> None:
    """No version is usable then; a yank without a reason, or of no version, is refused."""
    assert refusal(states.yank, published, SLUG, 3, ANN, reason=" ").code is Code.MALFORMED
    assert refusal(states.yank, published, SLUG, 9, ANN, reason="x").code is Code.VERSION_NOT_FOUND
    assert refusal(states.yank, published, "none", 1, ANN, reason="x").code is Code.WORKFLOW_NOT_FOUND
    for number in (1, 2, 3):
        states.yank(published, SLUG, number, ANN, reason="Bad")
    assert states.newest_usable(published, published.state(SLUG)) is None


def test_a_title_and_notes_are_kept_with_their_history(published: Store) -> None:
    """What is not given stays, None removes, and an equal annotation writes nothing."""
    states.annotate(published, SLUG, 2, {"title": "Spring", "notes": "Line 1\n\nLine 2"}, ANN)
    states.annotate(published, SLUG, 2, {"title": "Spring, 2026"}, ANN)
    before = published.state(SLUG).ledger
    states.annotate(published, SLUG, 2, {"title": "Spring, 2026"}, ANN)
    assert published.state(SLUG).ledger == before
    states.annotate(published, SLUG, 2, {"notes": None}, ANN)
    history = [(entry.title, entry.notes) for entry in states.annotations_of(published, SLUG, 2)]
    assert history == [
        ("Spring, 2026", None),
        ("Spring, 2026", "Line 1\n\nLine 2"),
        ("Spring", "Line 1\n\nLine 2"),
    ]
    assert list(states.annotations_of(published, SLUG, 1)) == []


def test_an_archived_workflow_takes_no_change_until_it_is_restored(published: Store) -> None:
    """Its draft, slug and versions stay; saving, discarding, publishing and moving are refused in words."""
    saved = published.create_draft(SLUG, yaml("four"), ANN)
    states.archive(published, SLUG, ANN, reason="Replaced")
    state = published.state(SLUG)
    assert (state.archived, state.draft, state.current) == (True, saved.commit, 3)
    for error in (
        refusal(published.save_draft, SLUG, yaml("five"), ANN, expected=ANY),
        refusal(published.discard_draft, SLUG, ANN),
        refusal(published.publish, SLUG, ANN),
        refusal(published.move_current, SLUG, 1, ANN),
    ):
        assert error.code is Code.WORKFLOW_ARCHIVED
        assert "unarchive it first" in error.message
    assert refusal(published.create_workflow, SLUG, None, ANN).code is Code.WORKFLOW_EXISTS
    states.unarchive(published, SLUG, ANN)
    assert published.publish(SLUG, ANN).number == 4
    kinds = [entry.kind for entry in published.ledger(SLUG)][:3]
    assert kinds == [LedgerKind.PUBLISHED, LedgerKind.UNARCHIVED, LedgerKind.ARCHIVED]


def test_a_yanked_version_enters_no_environment_and_no_release(store: Store) -> None:
    """With the reason of the yank; a pointer that is on it stays."""
    publish(store, "a", "1")
    publish(store, "a", "2")
    pointers.change_rulebook(store, [EnvironmentRule("qa", "owner")], ANN.actor, {ANY})
    pointers.move(store, "a", Environment("qa", 1), ANN)
    states.yank(store, "a", 1, ANN, reason="it orders twice")
    for refused in (
        refusal(pointers.move, store, "a", Environment("qa", 1, held=True), ANN),
        refusal(pointers.promote, store, ["a"], "qa", "current", ANN),
        refusal(releases.create, store, "r", [Wanted("a", version=1)], ANN),
    ):
        assert "v1 of a was yanked (it orders twice)" in refused.message
    assert [pointer.version for pointer in store.state("a").environments] == [1]


def test_every_write_of_an_archived_workflow_is_refused_with_one_rule(store: Store) -> None:
    """The refusal names the command that unarchives it, also for writes that would change nothing."""
    publish(store, SLUG, "one")
    publish(store, SLUG, "two")
    pointers.change_rulebook(store, [EnvironmentRule("qa", "owner")], ANN.actor, {ANY})
    pointers.move(store, SLUG, Environment("qa", 1), ANN)
    store.create_draft(SLUG, yaml("three"), ANN)
    store.discard_draft(SLUG, ANN)
    store.create_draft(SLUG, yaml("four"), ANN)
    states.archive(store, SLUG, ANN)
    before = store.refs.below(b"refs/")
    writes: dict[str, Callable[[], object]] = {
        "create_draft": lambda: store.create_draft(SLUG, yaml("x"), ANN),
        "create_draft_from": lambda: store.create_draft_from(SLUG, 1, ANN),
        "save_draft": lambda: store.save_draft(SLUG, yaml("x"), ANN, expected=ANY),
        "save_draft unchanged": lambda: store.save_draft(SLUG, yaml("four"), ANN, expected=ANY),
        "discard_draft": lambda: store.discard_draft(SLUG, ANN),
        "restore_draft": lambda: store.restore_draft(SLUG, ANN),
        "revert": lambda: store.revert(SLUG, 1, ANN, expected=ANY),
        "publish": lambda: store.publish(SLUG, ANN),
        "move_current": lambda: store.move_current(SLUG, 1, ANN),
        "move_current unchanged": lambda: store.move_current(SLUG, 2, ANN),
        "clear_current": lambda: store.clear_current(SLUG, ANN),
        "describe": lambda: store.describe(SLUG, {"name": "New"}, ANN),
        "rename": lambda: store.rename(SLUG, "sales", ANN),
        "yank": lambda: states.yank(store, SLUG, 1, ANN, reason="Bad"),
        "unyank": lambda: states.unyank(store, SLUG, 1, ANN),
        "annotate": lambda: states.annotate(store, SLUG, 1, {"title": "New"}, ANN),
        "move": lambda: pointers.move(store, SLUG, Environment("qa", 2), ANN),
        "remove": lambda: pointers.remove(store, SLUG, "qa", ANN),
        "promote": lambda: pointers.promote(store, [SLUG], "qa", "current", ANN),
        "release a version": lambda: releases.create(store, "r", [Wanted(SLUG, version=1)], ANN),
        "release a draft": lambda: releases.create(store, "r", [Wanted(SLUG, draft=ANY)], ANN),
    }
    for name, write in writes.items():
        error = refusal(write)
        assert f"unarchive it first (gitstore unarchive {SLUG})" in error.message, name
        inner = [each.code for _, each in getattr(error, "refusals", ())]
        assert Code.WORKFLOW_ARCHIVED in (error.code, *inner), name
    assert store.refs.below(b"refs/") == before


def test_a_workflow_that_was_never_published_is_deleted_and_its_slug_is_free(store: Store) -> None:
    """Git keeps the draft, so that the deletion can be taken back until the slug is used again."""
    draft = store.create_workflow("a", yaml("one"), ANN).commit
    states.delete(store, "a", ANN, reason="A trial")
    assert store.state("a").deleted
    assert store.refs.read(names.draft("a")) is None
    for gone in (
        refusal(store.create_draft, "a", yaml("x"), ANN),
        refusal(states.delete, store, "a", ANN),
        refusal(states.archive, store, "a", ANN),
    ):
        assert gone.code is Code.WORKFLOW_NOT_FOUND

    states.unarchive(store, "a", ANN)
    assert store.restore_draft("a", ANN).commit == draft
    states.archive(store, "a", ANN)
    states.delete(store, "a", ANN)

    store.create_workflow("a", yaml("two"), ANN, name="Another")
    assert not store.state("a").archived
    assert store.publish("a", ANN).number == 1
    assert refusal(states.delete, store, "a", ANN).code is Code.WORKFLOW_PUBLISHED


def test_a_draft_that_equals_a_yanked_version_is_published_as_a_new_one(published: Store) -> None:
    """A repeated publication of the yanked version itself is refused with the reason."""
    states.yank(published, SLUG, 3, ANN, reason="It loses orders")
    error = refusal(published.publish, SLUG, ANN)
    assert error.code is Code.VERSION_UNUSABLE
    assert "It loses orders" in error.message
    published.create_draft_from(SLUG, 3, ANN)
    made = published.publish(SLUG, ANN)
    assert (made.number, made.new, published.state(SLUG).current) == (4, True, 4)
