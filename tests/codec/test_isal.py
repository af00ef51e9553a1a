"""contract: codec-bytes.
What ISA-L writes for gzip 1 and 2 does not depend on where its state lies in memory."""

from __future__ import annotations

import zlib
from itertools import pairwise
from typing import Any

import pytest
from isal import isal_zlib

from build_oci.codec import gzip as gzip_codec

pytestmark = pytest.mark.once

SLOTS = {1: 1 << 13, 2: 1 << 15}  # of ISA-L's hash table


def slot(level: int, value: int) -> int:
    """Where ISA-L's hash table keeps the four bytes VALUE: by their CRC-32C, from 0 on."""
    for _ in range(32):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value % SLOTS[level]


def slot_of_address(level: int, stream: object) -> int:
    # 128: to where ISA-L's state begins in the object. Its address without the last 16 bits is
    # what was hashed instead of data.
    return slot(level, (id(stream) + 128) >> 16 & 0xFFFFFFFF)


def data_with_start_in(level: int, wanted: int) -> bytes:
    """Data whose first four bytes are in the slot WANTED and are found there soon again, if nothing
    else is put there.
    """
    for number in range(1 << 20):
        start = (number * 2654435761 % (1 << 32)).to_bytes(4, "little")
        if slot(level, int.from_bytes(start, "little")) == wanted:
            data = start + b"filling" + start + b"and more of it" * 300
            between = (int.from_bytes(data[at : at + 4], "little") for at in range(1, 11))
            if wanted not in (slot(level, value) for value in between):
                return data
    raise AssertionError("no four bytes have this slot")


@pytest.mark.parametrize("level", [1, 2])
def test_bytes_do_not_depend_on_addresses(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At two addresses, of which ISA-L took the one for the first four bytes of the data."""
    streams: list[Any] = [isal_zlib.compressobj(level, 8, -15, 8) for _ in range(8)]
    first, second = next(
        pair
        for pair in pairwise(streams)
        if slot_of_address(level, pair[0]) != slot_of_address(level, pair[1])
    )
    data = data_with_start_in(level, slot_of_address(level, first))
    packed = []
    for stream in (first, second):
        monkeypatch.setattr(isal_zlib, "compressobj", lambda *_, given=stream: given)
        packed.append(gzip_codec._deflate_isal(level, memoryview(data)))
    assert packed[0] == packed[1]
    assert zlib.decompressobj(-15).decompress(packed[0]) == data


@pytest.mark.parametrize("level", [1, 2])
def test_sizes_around_the_first_call(level: int) -> None:
    text = bytes(range(200)) * 6
    for size in (1, 2, 16, 17, 18, 287, 288, 289, 290, 291, 304, 305, 306, 577, 578, 1200):
        packed = gzip_codec._deflate_isal(level, memoryview(text)[:size])
        # Ends with the mark of a flush, after which the next block may follow.
        assert packed.endswith(b"\0\0\xff\xff")
        assert zlib.decompressobj(-15).decompress(packed + b"\x03\x00") == text[:size]
