"""Objects: ancestry as in git, texts and dates that Postgres can store, damage named by object."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from dulwich.object_store import DiskObjectStore
from dulwich.objects import Blob
from hypothesis import given
from hypothesis import strategies as st

from gitstore.errors import Code, GitstoreError
from gitstore.git.commits import ident, new_commit, person, text, utc
from gitstore.git.objects import WritableObjects
from gitstore.git.process import BatchReader
from gitstore.model import Person
from tests.conftest import examples
from tests.gitstore.conftest import Git

EMPTY_TREE = b"4b825dc642cb6eb9a060e54bf8d69288fbee4904"
GRAPHS = st.lists(
    st.tuples(st.integers(0, 60), st.sets(st.integers(1, 5), max_size=3)), min_size=2, max_size=14
)


@examples(30)
@given(graph=GRAPHS)
def test_ancestry_is_that_of_git_with_any_dates(bare: Path, graph: list[tuple[int, set[int]]]) -> None:
    """Random graphs with random commit dates: every answer equals that of the parents' closure."""
    objects = WritableObjects(bare / "objects")
    oids: list[bytes] = []
    above: list[set[bytes]] = []
    for position, (when, back) in enumerate(graph):
        parents = sorted({position - step for step in back if position - step >= 0})
        one = new_commit(
            tree=EMPTY_TREE,
            parents=[oids[parent] for parent in parents],
            author=Person("a", "a@b"),
            committer=Person("a", "a@b"),
            when=datetime.fromtimestamp(when, UTC),
            message=str(position),
        )
        objects.write([one])
        oids.append(one.id)
        above.append({one.id}.union(*(above[parent] for parent in parents)))
    for descendant, closure in zip(oids, above, strict=True):
        for ancestor in oids:
            assert objects.is_ancestor(ancestor, descendant) == (ancestor in closure)
    objects.close()


def test_objects_are_read_together(bare: Path) -> None:
    """Packed and loose, more than a pipe holds; missing and damaged ones are left out."""
    objects = WritableObjects(bare / "objects")
    loose = [Blob.from_string(b"%d\n" % number * 200) for number in range(150)]
    objects.write(loose[:50])
    objects.write_pack(loose[50:])
    oids = [item.id for item in loose]
    objects.close()
    with BatchReader(bare) as reader:
        read = list(objects.keep_read(reader.read([b"0" * 40, *oids])))
    assert [item.as_raw_string() for item in read] == [item.as_raw_string() for item in loose]
    path = objects.folder / oids[3][:2].decode() / oids[3][2:].decode()
    path.chmod(0o600)
    path.write_bytes(b"damaged")
    objects.close()
    with BatchReader(bare) as reader:
        assert oids[3] not in [item.id for item in objects.keep_read(reader.read(oids))]
    with pytest.raises(GitstoreError) as damaged:
        objects.get(oids[3])
    assert damaged.value.code is Code.INTEGRITY
    objects.close()


def test_a_short_fork_off_a_long_history_costs_its_own_length(bare: Path) -> None:
    """A negative answer does not need a walk of the shared history."""
    objects = WritableObjects(bare / "objects")
    chain = [b""]
    for second in range(300):
        chain.append(_made(objects, chain[-1:] if second else [], second))
    ours, theirs = (_made(objects, [chain[-1]], 1000 + side) for side in (1, 2))
    looked = 0
    real = objects.commit

    def counting(oid: bytes) -> object:
        nonlocal looked
        looked += 1
        return real(oid)

    objects.commit = counting  # type: ignore[method-assign, assignment]
    assert not objects.is_ancestor(ours, theirs)
    assert looked < 20
    objects.close()


def _made(objects: WritableObjects, parents: list[bytes], second: int) -> bytes:
    who = Person("a", "a@b")
    when = datetime.fromtimestamp(second, UTC)
    one = new_commit(
        tree=EMPTY_TREE, parents=parents, author=who, committer=who, when=when, message=str(second)
    )
    objects.write([one])
    return bytes(one.id)


def test_written_refs_are_sound_for_git(bare: Path, git: Git) -> None:
    """git fsck --strict accepts commits made from hostile names and messages."""
    objects = WritableObjects(bare / "objects")
    hostile = Person("a<b>\n\0", "x>\ny")
    from dulwich.objects import Tree

    objects.write([Tree()])
    one = new_commit(
        tree=EMPTY_TREE,
        parents=[],
        author=hostile,
        committer=Person("", ""),
        when=datetime.now(UTC),
        message="nul\0 and é",
    )
    objects.write([one])
    git("update-ref", "refs/heads/x", one.id.decode())
    git("fsck", "--strict")
    assert person(objects.commit(one.id).author) == Person("ab", "xy")
    objects.close()


def test_many_objects_are_one_pack(bare: Path, git: Git) -> None:
    """Sound for git, visible to an open reader, without partial files."""
    objects, reader = WritableObjects(bare / "objects"), WritableObjects(bare / "objects")
    blobs = [Blob.from_string(b"%d" % number) for number in range(300)]
    assert blobs[0].id not in reader
    objects.write_pack(blobs)
    objects.write_pack(blobs)
    assert all(blob.id in reader for blob in blobs)
    assert reader.blob(blobs[7].id) == b"7"
    assert git("count-objects", "-v").splitlines()[:4] == ["count: 0", "size: 0", "in-pack: 300", "packs: 1"]
    assert sorted(path.suffix for path in (bare / "objects" / "pack").iterdir()) == [".idx", ".pack"]
    git("fsck", "--strict")
    reader.close()
    objects.close()


def test_a_damaged_or_missing_object_is_an_error(bare: Path) -> None:
    """A truncated file is `integrity`, an absent one `objects_missing`, each naming the id."""
    objects = WritableObjects(bare / "objects")
    blob = Blob.from_string(b"hello" * 100)
    objects.write([blob])
    objects.close()
    path = bare / "objects" / blob.id[:2].decode() / blob.id[2:].decode()
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:10])
    objects = WritableObjects(bare / "objects")  # what it wrote itself, one does not read again
    with pytest.raises(GitstoreError, match=blob.id.decode()) as refusal:
        objects.blob(blob.id)
    assert refusal.value.code is Code.INTEGRITY
    with pytest.raises(GitstoreError) as refusal:
        objects.get(b"0" * 39 + b"1")
    assert refusal.value.code is Code.OBJECTS_MISSING
    objects.close()


def test_a_version_is_a_tag_on_a_commit(bare: Path, git: Git, commit: Callable[..., str]) -> None:
    """A lightweight and an annotated tag peel to the commit; a tag of a tag or a tree is refused."""
    one = commit(files={"a": "b"})
    git("tag", "-a", "x", "-m", "x", one)
    git("tag", "-a", "y", "-m", "y", "x")
    objects = WritableObjects(bare / "objects")
    assert objects.peel(one.encode())[0] == one.encode()
    assert objects.peel(git("rev-parse", "x").encode())[0] == one.encode()
    for other in (git("rev-parse", "y"), git("rev-parse", f"{one}^{{tree}}")):
        with pytest.raises(GitstoreError) as refusal:
            objects.peel(other.encode())
        assert refusal.value.code is Code.REF_NOT_ACCEPTED
    objects.close()


def test_dates_and_texts_fit_into_postgres() -> None:
    """A date past the year 9999 is the last second of it; NUL is replaced."""
    assert utc(10**15).year == 9999
    assert utc(-5) == datetime(1970, 1, 1, tzinfo=UTC)
    assert text(b"a\0b\xff") == "a\ufffdb\xff"
    assert ident(Person("  ", "")) == b"unknown <>"


@pytest.mark.parametrize(
    ("raw", "encoding", "decoded"),
    [
        ("Prüfung".encode(), None, "Prüfung"),
        ("Prüfung".encode("latin-1"), None, "Prüfung"),
        ("Prüfung".encode("latin-1"), b"iso-8859-1", "Prüfung"),
        ("Проверка".encode("koi8-r"), b"KOI8-R", "Проверка"),
        ("テスト".encode("shift-jis"), b"Shift_JIS", "テスト"),
        ("Prüfung".encode("latin-1"), b"UTF-8", "Prüfung"),
        ("Prüfung".encode(), b"us-ascii", "Prüfung"),
        *(
            ("Prüfung".encode(), name, "Prüfung")
            for name in (b"no-such-encoding", b"hex", b"zip", b"idna", b"punycode", b"undefined",
                         b"unicode_escape", b"a\0b", b"\xff", b"x" * 10_000)
        ),
    ],
)  # fmt: skip
def test_texts_are_decoded(raw: bytes, encoding: bytes | None, decoded: str) -> None:
    """By the declared encoding, else as UTF-8, else as Latin-1; Python's other codecs do not count."""
    assert text(raw, encoding) == decoded


def test_racing_writers_of_one_object_all_succeed(bare: Path) -> None:
    """Many processes write the same blob at once; each returns, and the blob is whole."""
    script = (
        "import sys; from pathlib import Path; from dulwich.objects import Blob; "
        "from gitstore.git.objects import WritableObjects; o = WritableObjects(Path(sys.argv[1])); "
        "[o.write([Blob.from_string(b'%d' % n)]) for n in range(40)]"
    )
    import sys

    children = [
        subprocess.Popen([sys.executable, "-c", script, str(bare / "objects")], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    assert [child.communicate()[1] for child in children] == [b""] * 4
    objects = WritableObjects(bare / "objects")
    assert all(objects.blob(Blob.from_string(b"%d" % n).id) == b"%d" % n for n in range(40))
    objects.close()


def test_a_loose_object_is_read_without_opening_a_pack(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request opens the repository; with 15 packs, that took a quarter of a publication."""
    objects = WritableObjects(bare / "objects")
    blob = Blob.from_string(b"new")
    objects.write([blob])
    objects.close()
    monkeypatch.setattr(DiskObjectStore, "get_raw", None)
    reading = WritableObjects(bare / "objects")
    assert reading.blob(blob.id) == b"new"
    reading.close()


def test_the_packed_copy_of_a_damaged_loose_object_is_read(bare: Path) -> None:
    objects = WritableObjects(bare / "objects")
    blob = Blob.from_string(b"twice")
    objects.write([blob])
    objects.write_pack([blob])
    objects.close()
    loose = bare / "objects" / blob.id[:2].decode() / blob.id[2:].decode()
    loose.chmod(0o644)
    loose.write_bytes(b"")
    reading = WritableObjects(bare / "objects")
    assert reading.blob(blob.id) == b"twice"
    reading.close()
