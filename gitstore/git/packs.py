"""Measure the inflated size of a pushed pack without inflating it.

A pack of 236 bytes can expand to 1 GiB through a delta, and 1 MB of zlib data to as much. Each entry declares
its inflated size, a delta in its first bytes, so the sizes are summed before git unpacks anything. zlib
streams are decompressed in small steps and discarded, and must not exceed the declared size.

Format: gitformat-pack(5).
"""

from __future__ import annotations

import zlib
from hashlib import sha1
from typing import NamedTuple

from gitstore.errors import GitstoreError, ObjectsRefusedError, too_large
from gitstore.model import Limits

_OFS_DELTA, _REF_DELTA = 6, 7
_STEP = 64 * 1024
_HEADER, _TRAILER = 12, 20


class Measured(NamedTuple):
    """The number of objects in a pack, and the bytes of memory that they and the bases of its deltas need."""

    objects: int
    inflated: int


def measure(pack: bytes | memoryview, limits: Limits) -> Measured:
    """Return the declared size of `pack`.

    Raises `too_large` if an object, the sum of all or their number exceeds `limits`, `objects_refused` if the
    pack is malformed or its checksum is wrong.
    """
    view = memoryview(pack)
    if len(view) < _HEADER + _TRAILER or bytes(view[:8]) != b"PACK\0\0\0\2":
        raise _malformed("not a pack of version 2")
    count = int.from_bytes(view[8:12])
    if count > limits.pack_objects:
        raise too_large("the pack holds", count, limits.pack_objects, unit="objects")
    if sha1(view[:-_TRAILER]).digest() != bytes(view[-_TRAILER:]):  # noqa: S324 - the format's checksum
        raise _malformed("wrong checksum")
    body = view[:-_TRAILER]
    at, total, bases = _HEADER, 0, 0
    for _ in range(count):
        at, size, base = _measure_entry(body, at, limits)
        total += size
        bases += base
        if total > limits.inflated:
            raise too_large("the pack inflates to more than", total, limits.inflated)
    if at != len(body):
        raise _malformed("data after the last object")
    return Measured(count, total + bases)


def _measure_entry(body: memoryview, at: int, limits: Limits) -> tuple[int, int, int]:
    """Return (offset of the next entry, inflated size, size of a delta's base) of the entry at `at`."""
    kind, size, at = _entry_header(body, at)
    if size > limits.object:
        raise too_large("an object of the pack has", size, limits.object)
    if kind == _REF_DELTA:
        at += 20
    elif kind == _OFS_DELTA:
        _, at = _varint(body, at)
    head, at = _skip_stream(body, at, size)
    base = 0
    if kind in (_OFS_DELTA, _REF_DELTA):
        base, position = _varint(head, 0)
        size, _ = _varint(head, position)
        if size > limits.object:
            raise too_large("an object of the pack has", size, limits.object)
    return at, size, base


def _entry_header(body: memoryview, at: int) -> tuple[int, int, int]:
    """Return (type, declared size, end offset) of an entry's header."""
    first = _byte(body, at)
    size, shift, at = first & 15, 4, at + 1
    more = first & 128
    while more:
        byte = _byte(body, at)
        size |= (byte & 127) << shift
        shift, at, more = shift + 7, at + 1, byte & 128
        if shift > 64:
            raise _malformed("an object's size exceeds 64 bits")
    return (first >> 4) & 7, size, at


def _skip_stream(body: memoryview, at: int, declared: int) -> tuple[bytes, int]:
    """Return (first bytes, end offset) of the zlib stream at `at`, which must inflate to `declared` bytes."""
    inflater = zlib.decompressobj()
    head, inflated = b"", 0
    try:
        while not inflater.eof:
            chunk = body[at : at + _STEP]
            if not chunk:
                raise _malformed("truncated")
            out = inflater.decompress(chunk, _STEP)
            # At the end of the stream, unconsumed_tail may repeat unused_data, so subtract only one of them.
            at += len(chunk) - len(inflater.unused_data if inflater.eof else inflater.unconsumed_tail)
            head = head or out[:32]
            inflated += len(out)
            if inflated > declared:
                raise _malformed("an object is longer than declared")
    except zlib.error as error:
        raise _malformed("an object is not zlib data") from error
    if inflated != declared:
        raise _malformed("an object is shorter than declared")
    return head, at


def _varint(data: memoryview | bytes, at: int) -> tuple[int, int]:
    """Return a little-endian base-128 number and its end offset."""
    value = shift = 0
    while True:
        byte = _byte(data, at)
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if not byte & 128:
            return value, at
        if shift > 64:
            raise _malformed("a number exceeds 64 bits")


def _byte(data: memoryview | bytes, at: int) -> int:
    if at >= len(data):
        raise _malformed("truncated")
    return data[at]


def _malformed(why: str) -> GitstoreError:
    return ObjectsRefusedError(f"the pack is damaged: {why}")
