"""Declared sizes of packs: honest ones are counted, bombs and damaged ones refused without inflating them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha1
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.errors import Code, GitstoreError
from gitstore.git.packs import measure
from gitstore.model import Limits
from tests.gitstore.conftest import Git

LIMITS = Limits()


def entry(kind: int, size: int, stream: bytes) -> bytes:
    header, size = [(kind << 4) | (size & 15)], size >> 4
    while size:
        header[-1] |= 128
        header.append(size & 127)
        size >>= 7
    return bytes(header) + stream


def varint(size: int) -> bytes:
    out = b""
    while size > 127:
        out += bytes([size & 127 | 128])
        size >>= 7
    return out + bytes([size])


def pack(*entries: bytes, count: int | None = None) -> bytes:
    body = b"PACK" + struct.pack(">II", 2, len(entries) if count is None else count) + b"".join(entries)
    return body + sha1(body).digest()


def refusal(data: bytes, limits: Limits = LIMITS) -> GitstoreError:
    with pytest.raises(GitstoreError) as caught:
        measure(data, limits)
    return caught.value


def test_a_pack_by_git_is_counted(git: Git, commit: Callable[..., str], bare: Path) -> None:
    """Commits, trees, blobs and deltas, offset and reference ones, are all gone through."""
    text = "".join(f"line {number}\n" for number in range(2000))
    one = commit(files={"a": text}, when=1)
    two = commit(one, files={"a": text + "more\n"}, when=2)
    git("update-ref", "refs/heads/x", two)
    for flags in (["--delta-base-offset"], []):
        name = git("pack-objects", "--revs", *flags, str(bare / "made"), input=two)
        assert measure((bare / f"made-{name}.pack").read_bytes(), LIMITS).objects == 6


def test_a_delta_of_a_few_bytes_that_expands_to_a_gibibyte_is_refused() -> None:
    """The size that a delta declares is read from its first bytes, before git applies it."""
    delta = varint(10) + varint(2**30) + b"\x90\x0a" * 5
    bomb = pack(
        entry(3, 10, zlib.compress(b"0123456789")), entry(7, len(delta), b"\1" * 20 + zlib.compress(delta))
    )
    assert len(bomb) < 200
    assert refusal(bomb).code is Code.TOO_LARGE


def test_a_zlib_stream_is_not_inflated_past_what_it_declares() -> None:
    """A megabyte declared as ten bytes, and one declared as a gibibyte."""
    stream = zlib.compress(b"\0" * 2**24, 9)
    assert "longer than declared" in refusal(pack(entry(3, 10, stream))).message
    assert refusal(pack(entry(3, 2**30, stream))).code is Code.TOO_LARGE
    assert "shorter" in refusal(pack(entry(3, 50, zlib.compress(b"x")))).message


def test_each_limit_has_its_own_message() -> None:
    """An object, their sum, and their number."""
    small = entry(3, 100, zlib.compress(b"x" * 100))
    assert "an object" in refusal(pack(small), replace(LIMITS, object=99)).message
    assert "inflates" in refusal(pack(small, small), replace(LIMITS, inflated=150)).message
    assert "objects" in refusal(pack(small, small), replace(LIMITS, pack_objects=1)).message
    assert "objects" in refusal(pack(count=2**32 - 1)).message


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "version 2"),
        (b"PACK" + b"\0" * 40, "version 2"),
        (pack()[:-1] + b"x", "checksum"),
        (pack(count=1), "truncated"),
        (pack(b"\xb0" + b"\xff" * 12), "64 bits"),
        (pack(entry(3, 5, b"not zlib")), "zlib"),
        (pack(entry(3, 1, zlib.compress(b"x")[:-4])), "truncated"),
        (pack(b"garbage", count=0), "data after"),
        (pack(entry(6, 1, b"")), "truncated"),
    ],
)
def test_a_damaged_pack_is_refused_with_the_reason(data: bytes, why: str) -> None:
    """Wrong signature, checksum, counts, numbers and streams."""
    error = refusal(data)
    assert error.code is Code.OBJECTS_REFUSED
    assert why in error.message


@given(st.binary(max_size=300), st.integers(0, 5))
def test_any_bytes_are_counted_or_refused_with_a_code(body: bytes, count: int) -> None:
    """Random bytes behind a sound header and before a sound checksum."""
    try:
        assert measure(pack(body, count=count), LIMITS).objects == count
    except GitstoreError as error:
        assert error.code in (Code.OBJECTS_REFUSED, Code.TOO_LARGE)


def test_an_object_is_inflated_in_many_steps() -> None:
    """Well compressed, and followed by others: the next one begins right behind it."""
    large = b"a line like all the others\n" * 50_000
    entries = [entry(3, len(large), zlib.compress(large)), entry(3, 5, zlib.compress(b"small"))]
    assert measure(pack(*entries, *entries), LIMITS).objects == 4
