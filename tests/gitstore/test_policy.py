"""Every rule of the policy, on constructed facts."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.errors import Code, ForbiddenError, GitstoreError, ObjectsMissingError
from gitstore.model import Definition, Permission, Problem, Problems
from gitstore.policy import Command, Effect, Verdict, WorkflowTip, discards_refused, judge

DRAFT = b"refs/heads/drafts/a"
EVERYTHING = frozenset(Permission)


def oid(number: int) -> bytes:
    """Commit `number` of a straight history: smaller numbers are its ancestors. 100 and up: another root."""
    return b"%040x" % number


def tag(number: int, slug: str = "a") -> bytes:
    return f"refs/tags/{slug}/v{number}".encode()


@dataclass
class Facts:
    """A repository where commits are numbers and history is a line."""

    refs: dict[bytes, bytes] = field(default_factory=dict)
    latest: int = 0
    floor: int = 0
    allowed: frozenset[Permission] = EVERYTHING
    invalid: set[bytes] = field(default_factory=set)
    tag_name: bytes | None = None

    def authorize(self, permission: Permission, what: str) -> None:
        if permission not in self.allowed:
            raise ForbiddenError(f"{what} is not allowed")

    def tip(self, slug: str) -> WorkflowTip:
        return WorkflowTip(
            self.refs.get(f"refs/heads/drafts/{slug}".encode()),
            self.latest,
            self.refs.get(tag(self.latest, slug)),
            self.floor,
        )

    def holds(self, ref: bytes) -> bytes | None:
        return self.refs.get(ref)

    def peel(self, oid: bytes) -> tuple[bytes, bytes | None]:
        return oid, self.tag_name

    def draft_commit(self, oid: bytes) -> None:
        if oid == b"f" * 40:
            raise ObjectsMissingError("missing")

    def is_ancestor(self, ancestor: bytes, descendant: bytes) -> bool:
        older, newer = int(ancestor, 16), int(descendant, 16)
        return older <= newer and (older >= 100) == (newer >= 100)

    def definition(self, commit: bytes, slug: str) -> Definition:
        problems = Problems.of([Problem("x", "is wrong")] if commit in self.invalid else [])
        return Definition(b"", {}, "sha256:", problems)


def one(facts: Facts, ref: bytes, old: int | None, new: int | None) -> Verdict:
    command = Command(ref, None if old is None else oid(old), None if new is None else oid(new))
    (verdict,) = judge([command], facts)
    return verdict


def refused(verdict: Verdict) -> GitstoreError:
    assert verdict.refusal is not None, verdict
    return verdict.refusal


def test_a_draft_is_created_and_moves_forward() -> None:
    """Creation and fast-forward are saves, also with problems that block publishing."""
    assert one(Facts(), DRAFT, None, 1).effect is Effect.SAVE
    facts = Facts({DRAFT: oid(1)}, invalid={oid(2)})
    assert one(facts, DRAFT, 1, 2).effect is Effect.SAVE


@pytest.mark.parametrize(("old", "new"), [(None, 3), (1, 3), (None, 100)])
def test_a_stale_push_of_a_draft_is_refused(old: int | None, new: int) -> None:
    """The pusher's old value is not the current one; so is the creation of an existing draft."""
    error = refused(one(Facts({DRAFT: oid(2)}), DRAFT, old, new))
    assert error.code is Code.STALE_DRAFT
    assert error.message == "the draft moved since you fetched; pull, then push again"


def test_a_draft_is_not_rewritten() -> None:
    """The message gives the alternatives to a forced push."""
    error = refused(one(Facts({DRAFT: oid(2)}), DRAFT, 2, 100))
    assert error.code is Code.NOT_FAST_FORWARD
    assert "rebase onto it, or delete the draft and push again (the old one is kept)" in error.message


def test_a_draft_without_its_objects_is_refused() -> None:
    """The error about a tip is the refusal."""
    (verdict,) = judge([Command(DRAFT, None, b"f" * 40)], Facts())
    assert refused(verdict).code is Code.OBJECTS_MISSING


def test_a_draft_is_discarded_only_with_its_current_value() -> None:
    facts = Facts({DRAFT: oid(2)})
    assert one(facts, DRAFT, 2, None).effect is Effect.DISCARD
    assert refused(one(facts, DRAFT, 1, None)).code is Code.STALE_DRAFT
    assert one(Facts(), DRAFT, 1, None).effect is Effect.NOTHING


def test_a_tag_object_has_the_name_of_its_ref() -> None:
    """Else a signed tag could be replayed as another version; an upstream's tags were judged there."""
    for name in (b"a/v2", b"b/v1", b"v1", b"", b"\xff", b"x" * 1000):
        error = refused(one(Facts(tag_name=name), tag(1), None, 1))
        assert error.code is Code.REF_NOT_ACCEPTED
        assert f"not a/v1: git tag -f -a a/v1 {oid(1)[:12].decode()} && git push origin a/v1" in error.message
        (verdict,) = judge([Command(tag(1), None, oid(1))], Facts(tag_name=name), imported=True)
        assert verdict.effect is Effect.PUBLISH
    for own in (b"a/v1", None):
        assert one(Facts(tag_name=own), tag(1), None, 1).effect is Effect.PUBLISH


def test_any_refusal_in_the_push_refuses_a_discard() -> None:
    """A mirror push from a plain clone names refs that are not accepted, and so destroys nothing."""
    facts = Facts({DRAFT: oid(2), b"refs/heads/drafts/b": oid(1)})
    verdicts = judge(
        [
            Command(DRAFT, oid(2), None),
            Command(b"refs/remotes/origin/x", None, oid(1)),
            Command(b"refs/heads/drafts/b", oid(1), oid(2)),
        ],
        facts,
    )
    assert refused(verdicts[0]).code is Code.DISCARD_NOT_ALONE
    assert refused(verdicts[1]).code is Code.REF_NOT_ACCEPTED
    assert verdicts[2].effect is Effect.SAVE


B = b"refs/heads/drafts/b"


@pytest.mark.parametrize(
    ("commands", "announced", "discards"),
    [
        ([(DRAFT, 2, None)], None, True),
        ([(DRAFT, 2, None), (B, 1, None)], None, False),
        ([(DRAFT, 2, None), (B, 1, 2)], None, False),
        ([(DRAFT, 2, None), (tag(1, "b"), None, 1)], None, False),
        ([(DRAFT, 2, None), (B, 1, None)], 2, True),
        ([(DRAFT, 2, None), (B, 1, None)], 1, False),
        ([(DRAFT, 2, None), (B, 1, None)], 3, False),
        ([(DRAFT, 2, None), (B, 1, 2)], 1, True),
        ([(DRAFT, 2, None), (B, 1, 2), (tag(1, "b"), None, 2)], 1, True),
        ([(DRAFT, 2, None)], 0, False),
        ([(DRAFT, 2, None), (B, 1, 0)], 1, False),
        ([(DRAFT, 1, None), (B, 1, None)], 2, False),
    ],
    ids=str,
)
def test_a_push_discards_one_draft_or_the_announced_number(
    commands: list[tuple[bytes, int | None, int | None]], announced: int | None, discards: bool
) -> None:
    """The exact count permits several, and other commands; any other refusal refuses a discard."""
    facts = Facts({DRAFT: oid(2), B: oid(1)})
    given = [
        Command(ref, None if old is None else oid(old), None if new is None else oid(new))
        for ref, old, new in commands
    ]
    verdicts = judge(given, facts, no_discards=discards_refused(given, announced))
    for verdict in (verdict for verdict in verdicts if verdict.command.new is None):
        assert (verdict.refusal is None) is discards
        assert discards or refused(verdict).code in (Code.DISCARD_NOT_ALONE, Code.STALE_DRAFT)


def test_the_next_number_publishes() -> None:
    """The first number is v1, then each next one."""
    assert one(Facts(), tag(1), None, 1).effect is Effect.PUBLISH
    facts = Facts({tag(1): oid(1), tag(2): oid(2)}, latest=2)
    assert one(facts, tag(3), None, 2).effect is Effect.PUBLISH


@pytest.mark.parametrize("number", [1, 2, 4, 7])
def test_another_number_is_refused_with_the_right_commands(number: int) -> None:
    """Higher ones, and lower ones in a gap left by an import."""
    error = refused(one(Facts({tag(2): oid(1)}, latest=2) if number != 2 else Facts(), tag(number), None, 3))
    assert error.code is Code.WRONG_NUMBER
    right = 3 if number != 2 else 1
    assert f"git tag -d a/v{number} && git tag -a a/v{right}" in error.message


@pytest.mark.parametrize("number", [4, 5, 6, 8])
def test_an_assigned_number_is_not_reused(number: int) -> None:
    """The repository has lost v4 to v6: a push and an import are refused, naming v7."""
    facts = Facts({tag(3): oid(1)}, latest=3, floor=6)
    error = refused(one(facts, tag(number), None, 3))
    assert (error.code, error.data["next"]) == (Code.WRONG_NUMBER, 7)
    assert "git tag -a a/v7" in error.message
    assert ("numbers up to v6 were assigned before" in error.message) == (number <= 6)
    (imported,) = judge([Command(tag(number), None, oid(3))], facts, imported=True)
    if number > 6:
        assert imported.effect is Effect.PUBLISH
    else:
        assert "are never reused" in refused(imported).message


def test_numbers_continue_above_the_floor() -> None:
    facts = Facts({tag(3): oid(1)}, latest=3, floor=6)
    verdicts = judge([Command(tag(8), None, oid(3)), Command(tag(7), None, oid(2))], facts)
    assert [verdict.effect for verdict in verdicts] == [Effect.PUBLISH] * 2
    error = refused(one(facts, tag(3), None, 2))
    assert error.message == "v3 is published and can't change; the next version is v7"


@pytest.mark.parametrize("new", [None, 1, 3])
@pytest.mark.parametrize("old", [None, 2, 9])
def test_a_version_is_not_moved_or_deleted_by_anyone(old: int | None, new: int | None) -> None:
    """With any old value, and for every role."""
    for allowed in (EVERYTHING, frozenset({Permission.EDIT})):
        facts = Facts({tag(1): oid(1), tag(2): oid(2)}, latest=2, allowed=allowed)
        error = refused(one(facts, tag(2), old, new))
        assert error.code is Code.VERSION_IMMUTABLE
        assert error.message == "v2 is published and can't change; the next version is v3"


def test_the_current_value_of_a_ref_is_ok() -> None:
    """Pushing the same again, with any old value, does nothing, a version and a draft alike."""
    facts = Facts({DRAFT: oid(2), tag(1): oid(1)}, latest=1)
    for ref, value in facts.refs.items():
        for old in (None, oid(7)):
            (verdict,) = judge([Command(ref, old, value)], facts)
            assert (verdict.refusal, verdict.effect) == (None, Effect.NOTHING)


def test_a_version_descends_from_the_one_before() -> None:
    """Otherwise the base moved, and the message names the version to merge."""
    error = refused(one(Facts({tag(1): oid(2)}, latest=1), tag(2), None, 100))
    assert error.code is Code.BASE_MOVED
    assert error.message == ("v1 was published after this draft began: git merge a/v1, then tag again")


def test_an_invalid_definition_is_not_published() -> None:
    """The refusal has all problems."""
    error = refused(one(Facts(invalid={oid(1)}), tag(1), None, 1))
    assert error.code is Code.DEFINITION_INVALID
    assert [problem.code for problem in error.data["problems"]] == ["x"]


@pytest.mark.parametrize(
    "ref",
    [
        b"refs/heads/main",
        b"refs/tags/v1",
        b"refs/ledger/a",
        b"refs/superseded/a/x",
        b"HEAD",
        b"x\xff",
        b"refs/notes/c",
    ],
)
def test_any_other_ref_is_refused_with_the_accepted_refs(ref: bytes) -> None:
    for old, new in ((None, 1), (1, 2), (2, None)):
        error = refused(one(Facts({ref: oid(9)}), ref, old, new))
        assert error.code is Code.REF_NOT_ACCEPTED
        assert "refs/heads/drafts/<slug>" in error.message


@pytest.mark.parametrize("ref", [b"refs/heads/drafts/Order", b"refs/tags/a_b/v1"])
def test_an_invalid_slug_is_refused_with_the_grammar(ref: bytes) -> None:
    """The message explains what is wrong with a ref that looks like a draft."""
    error = refused(one(Facts({}), ref, None, 1))
    assert "a slug is 1 to 63 of a-z, 0-9 and '-'" in error.message


def test_roles() -> None:
    """An editor saves, a publisher publishes, a viewer does neither."""
    editor = Facts(allowed=frozenset({Permission.READ, Permission.EDIT}))
    assert one(editor, DRAFT, None, 1).effect is Effect.SAVE
    assert refused(one(editor, tag(1), None, 1)).code is Code.FORBIDDEN
    viewer = Facts({DRAFT: oid(1)}, allowed=frozenset({Permission.READ}))
    assert refused(one(viewer, DRAFT, 1, 2)).code is Code.FORBIDDEN
    assert refused(one(viewer, DRAFT, 1, None)).code is Code.FORBIDDEN


@given(st.permutations(range(1, 12)))
def test_eleven_versions_are_accepted_in_any_order(order: list[int]) -> None:
    """`git push --tags` sends v1, v10, v11, v2: all are published."""
    verdicts = judge([Command(tag(number), None, oid(number)) for number in order], Facts())
    assert {verdict.effect for verdict in verdicts} == {Effect.PUBLISH}
    assert [verdict.command.ref for verdict in verdicts] == [tag(number) for number in order]


def test_an_atomic_push_is_refused_as_a_whole() -> None:
    """One refusal refuses the rest, each naming the refused ref."""
    verdicts = judge([Command(DRAFT, None, oid(1)), Command(tag(2), None, oid(1))], Facts(), atomic=True)
    assert refused(verdicts[0]).code is Code.ATOMIC_REFUSED
    assert "refs/tags/a/v2" in refused(verdicts[0]).message
    assert refused(verdicts[1]).code is Code.WRONG_NUMBER


def test_a_ref_named_twice_is_refused() -> None:
    """Neither of two values for one ref is accepted."""
    verdicts = judge([Command(DRAFT, None, oid(1)), Command(DRAFT, None, oid(2))], Facts())
    assert [refused(verdict).code for verdict in verdicts] == [Code.REF_NOT_ACCEPTED] * 2
