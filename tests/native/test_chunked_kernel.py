"""The kernels of zstd:chunked against plain Python: the checksum, and where contents are cut."""

from __future__ import annotations

import random
from itertools import groupby, pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from build_oci._native.chunked import crc64, crc64_joined, cut_content

pytestmark = pytest.mark.platform

POLYNOMIAL = 0xD800000000000000
HOLE = 1024


def crc64_oracle(data: bytes) -> int:
    """Bit by bit."""
    crc = (1 << 64) - 1
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (POLYNOMIAL if crc & 1 else 0)
    return crc ^ ((1 << 64) - 1)


def cuts_oracle(data: bytes) -> list[tuple[int, int, bool]]:
    """The rule, byte by byte: (start, size, is it a hole) of each chunk of a whole content."""
    holes, at = [], 0
    for byte, run in groupby(data):
        size = len(list(run))
        if byte == 0 and size >= HOLE:
            holes.append((at, at + size))
        at += size
    starts = {edge for hole in holes for edge in hole}
    inside: set[int] = set()
    for start, end in holes:
        inside.update(range(start + 1, end + 1))
    window, place = [0] * 64, 0
    first, second = 64 * 31, 64 * 63 * 31
    for number, byte in enumerate(data, 1):
        gone, window[place], place = window[place], byte, (place + 1) % 64
        first += byte - gone
        second += first - 64 * (gone + 31)
        if second & 0xFFFF == 0xFFFF and number not in inside:
            starts.add(number)
    edges = sorted(starts | {0, len(data)})
    kinds = dict(holes)
    return [(start, end - start, start in kinds) for start, end in pairwise(edges)]


# Splits are rare in random bytes (one in 65,536), so these are found once and put into contents.
def splitting(seed: int) -> bytes:
    """Bytes behind which a chunk ends, whatever stands before them."""
    rng = random.Random(seed)
    data = rng.randbytes(200_000)
    start, size, _ = cuts_oracle(data)[1]
    return data[start + size - 64 : start + size]


SPLITTING = [splitting(seed) for seed in range(2)]
pieces = st.one_of(
    st.sampled_from(SPLITTING),
    st.sampled_from([1, 2, 63, 64, 65, 500, 511, 512, 1000, 1023, 1024, 1025, 1500, 3000]).map(
        bytes
    ),
    st.binary(max_size=40),
    st.integers(1, 255).flatmap(
        lambda byte: st.integers(1, 1500).map(lambda size: bytes([byte]) * size)
    ),
)
contents = st.lists(pieces, max_size=9).map(b"".join)


@given(contents)
@example(b"123456789")
@settings(max_examples=60)
def test_checksum(data: bytes) -> None:
    assert crc64(data) == crc64_oracle(data)


def test_checksum_of_the_catalogue() -> None:
    """CRC-64/GO-ISO."""
    assert crc64(b"123456789") == 0xB90956C775A41001


@given(contents, contents)
@settings(max_examples=60)
def test_checksum_of_parts(first: bytes, second: bytes) -> None:
    whole = crc64(first + second)
    assert crc64_joined(crc64(first), crc64(second), len(second)) == whole
    assert crc64(second, crc64(first)) == whole


@given(contents)
@settings(max_examples=150)
def test_cuts(data: bytes) -> None:
    found, starts = cut_content(data)
    assert found == (cuts_oracle(data) if data else [])
    assert starts


def test_cuts_of_long_contents() -> None:
    rng = random.Random(3)
    data = (
        rng.randbytes(700_000)
        + bytes(70_000)
        + rng.randbytes(300_000)
        + bytes(1024)
        + rng.randbytes(100)
        + bytes(5000)
    )
    found, _ = cut_content(data)
    assert found == cuts_oracle(data)
    assert sum(1 for *_, is_hole in found if is_hole) == 3
    assert len(found) > 12


@given(contents, st.lists(st.integers(0, 20_000), max_size=4), st.randoms(use_true_random=False))
@settings(max_examples=200)
def test_cuts_of_parts(data: bytes, edges: list[int], rng: random.Random) -> None:
    """A content that is cut part by part, each with what surrounds it, has the chunks of the
    whole.
    """
    whole = cuts_oracle(data) if data else []
    edges += [start + rng.choice((0, 0, -1, 1)) for start, *_ in whole]
    inner = sorted({edge for edge in edges if 0 < edge < len(data)})
    joined: list[tuple[int, int, bool]] = []
    for start, end in zip([0, *inner], [*inner, len(data)], strict=True):
        found, starts = cut_content(
            data[start:end], data[max(0, start - HOLE) : start], data[end : end + HOLE]
        )
        for number, (at, size, is_hole) in enumerate(found):
            if number or starts:
                joined.append((start + at, size, is_hole))
            else:
                at, before, was_hole = joined.pop()
                assert was_hole == is_hole
                joined.append((at, before + size, is_hole))
    assert joined == whole


@pytest.mark.parametrize("data", [b"", b"\0", bytes(1023), bytes(1024), bytes(1025)])
def test_nothing_but_zeros(data: bytes) -> None:
    found, _ = cut_content(data)
    assert found == ([(0, len(data), len(data) >= HOLE)] if data else [])
