"""Binary search in packed-refs, compared with a plain reading of the file."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gitstore.git.packed_refs import PackedRefs

NAMES = st.lists(st.from_regex(r"refs/[a-c]{1,3}/[a-c0-3-]{1,4}", fullmatch=True), unique=True, max_size=40)


def write(path: Path, names: list[str], peeled: set[int], header: str) -> dict[bytes, bytes]:
    lines = [header] if header else []
    refs = {}
    for position, name in enumerate(names):
        oid = f"{position:040x}"
        refs[name.encode()] = oid.encode()
        lines.append(f"{oid} {name}")
        if position in peeled:
            lines.append(f"^{position:040x}")
    path.write_text("".join(line + "\n" for line in lines))
    return refs


@given(
    names=NAMES, peeled=st.sets(st.integers(0, 40)), prefix=st.sampled_from(["refs/", "refs/a/", "refs/b"])
)
def test_every_ref_is_found_and_no_other(tmp_path_factory, names, peeled, prefix) -> None:  # type: ignore[no-untyped-def]
    """One by one and by prefix, with peeled lines in between, as in a plain reading of the file."""
    path = tmp_path_factory.mktemp("packed") / "packed-refs"
    refs = write(path, sorted(names), peeled, "# pack-refs with: peeled fully-peeled sorted ")
    with PackedRefs(path) as packed:
        assert {name: packed.get(name) for name in refs} == refs
        assert all(packed.get(name + b"x") == refs.get(name + b"x") for name in refs)
        wanted = {name: oid for name, oid in sorted(refs.items()) if name.startswith(prefix.encode())}
        assert dict(packed.scan(prefix.encode())) == wanted


@given(names=NAMES)
def test_an_unsorted_file_is_read_too(tmp_path_factory, names) -> None:  # type: ignore[no-untyped-def]
    """A file by another tool, without the word "sorted" in its header, gives the same refs."""
    path = tmp_path_factory.mktemp("packed") / "packed-refs"
    refs = write(path, names, {0, 2}, "")
    with PackedRefs(path) as packed:
        assert {name: packed.get(name) for name in refs} == refs


def test_no_file_and_an_empty_file_hold_nothing(tmp_path: Path) -> None:
    """A repository that was never packed has no such file."""
    with PackedRefs(tmp_path / "packed-refs") as packed:
        assert packed.get(b"refs/tags/a/v1") is None
    (tmp_path / "packed-refs").touch()
    with PackedRefs(tmp_path / "packed-refs") as packed:
        assert list(packed.scan(b"refs/")) == []
