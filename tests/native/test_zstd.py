"""Frames that zstd makes apart, joined into one: the library's own reader judges what comes out."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from places import REPOSITORY

from build_oci._native.zstd import make_joinable

pytestmark = pytest.mark.once

HEADER = b"\x28\xb5\x2f\xfd\x00" + bytes([27 - 10 << 3])
LAST_EMPTY = b"\x01\0\0"
BLOCK = 128 << 10


def frame(data: bytes, level: int = 3, **parameters: int) -> bytes:
    """DATA as a frame without checksum, content size and dictionary."""
    chosen = zstandard.ZstdCompressionParameters.from_level(
        level, write_checksum=False, write_content_size=False, **parameters
    )
    return zstandard.ZstdCompressor(compression_params=chosen).compress(data)


def plain(stream: bytes) -> bytes:
    reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
    data = reader.decompress(stream)
    assert (reader.eof, reader.unused_data) == (True, b"")
    return data


def joined(*frames: bytes, limit: int = BLOCK) -> bytes:
    """Without its frame header each of FRAMES, made to go on."""
    return (
        HEADER
        + b"".join(piece for one in frames for piece in make_joinable(one, plain(one), limit))
        + LAST_EMPTY
    )


def words(rng: random.Random, size: int, kinds: int = 60) -> bytes:
    some = [rng.randbytes(rng.randrange(1, 9)) for _ in range(kinds)]
    return b"".join(rng.choices(some, k=size // 2 + 1))[:size]


def periods(rng: random.Random, size: int, kinds: int = 0) -> bytes:
    """Runs and repeats at the distances that every frame begins with: 1, 4 and 8."""
    data = b""
    while len(data) < size:
        data += rng.randbytes(rng.choice((1, 4, 8))) * rng.randrange(1, 60) + rng.randbytes(
            rng.randrange(12)
        )
    return data[:size]


def zeros(rng: random.Random, size: int, kinds: int = 0) -> bytes:
    return bytes(size)


def noise(rng: random.Random, size: int, kinds: int = 0) -> bytes:
    return rng.randbytes(size)


def letters(rng: random.Random, size: int, kinds: int = 0) -> bytes:
    """Literals that shrink, and hardly a match."""
    return bytes(rng.choices(range(97, 123), k=size))


KINDS: list[Callable[..., bytes]] = [words, periods, zeros, noise, letters]


@pytest.mark.parametrize("level", range(1, 20))
def test_every_level(level: int) -> None:
    """Levels differ in what sequences they find, in how blocks are split, and in whether a block
    uses the tables of the one before.
    """
    rng = random.Random(level)
    sizes = (0, 1, 7, 300, 5000, 70_000, BLOCK, 300_000) if level < 13 else (0, 300, 70_000)
    parts = [kind(rng, size, rng.choice((3, 60, 4000))) for size in sizes for kind in KINDS]
    rng.shuffle(parts)
    frames = [frame(part, level) for part in parts]
    # So that nothing, everything or something is stored that would be written anew.
    for limit in (BLOCK, 0, 60, 4000):
        assert plain(joined(*frames, limit=limit)) == b"".join(parts)


def test_without_it_a_reader_goes_wrong() -> None:
    """Frames whose blocks are merely put together mean something else: the three offsets are those
    of the frame before.
    """
    parts = [periods(random.Random(n), 5000) for n in range(3)]
    frames = [frame(part) for part in parts]

    def naive(one: bytes) -> bytes:
        word = int.from_bytes(one[6:9], "little")
        assert word & 1  # one block
        return (word & ~1).to_bytes(3, "little") + one[9:]

    stream = HEADER + b"".join(map(naive, frames)) + LAST_EMPTY
    try:
        wrong = plain(stream) != b"".join(parts)
    except zstandard.ZstdError:
        wrong = True
    assert wrong
    assert plain(joined(*frames)) == b"".join(parts)


def test_example_of_the_documentation() -> None:
    """The two frames that docs/internals/joining.md takes apart."""
    page = (REPOSITORY / "docs" / "internals" / "joining.md").read_text()
    first, second = b"container-" * 3, b"total" + b"." * 27
    frames = ["28 b5 2f fd 00 00 85 00 00 50 63 6f 6e 74 61 69 6e 65 72 2d 01 00 a5 0b 12"]
    frames += ["28 b5 2f fd 00 00 65 00 00 30 74 6f 74 61 6c 2e 01 00 36 28 02"]
    changed = [
        "84 00 00 50 63 6f 6e 74 61 69 6e 65 72 2d 01 00 a5 0b 12",
        "64 00 00 30 74 6f 74 61 6c 2e 01 00 d8 ae 08",
    ]
    assert all(text in " ".join(page.split()) for text in (*frames, *changed))
    whole = b""
    for one, data, expected in zip(frames, (first, second), changed, strict=True):
        assert plain(bytes.fromhex(one)) == data
        whole += b"".join(make_joinable(bytes.fromhex(one), data))
        assert whole.endswith(bytes.fromhex(expected))
    header = bytes.fromhex("28 b5 2f fd 00 68")
    assert plain(header + whole + LAST_EMPTY) == first + second
    unchanged = whole.replace(bytes.fromhex("d8 ae 08"), bytes.fromhex("36 28 02"))
    assert plain(header + unchanged + LAST_EMPTY) == first + b"total.ner-total.ner-total.ner-to"


def test_what_is_not_affected_stays_as_it_is() -> None:
    """Only the first blocks are written anew; the rest is a view of the frame."""
    data = words(random.Random(1), 3_000_000, 4000)
    made = frame(data)
    pieces = make_joinable(made, data)
    views = [piece for piece in pieces if isinstance(piece, memoryview)]
    assert all(view.obj is made for view in views)
    assert sum(map(len, views)) > len(made) * 0.8
    assert abs(sum(map(len, pieces)) - len(made)) < len(made) * 0.01


PARTS = st.tuples(
    st.sampled_from(KINDS), st.integers(0, 3000), st.integers(1, 12), st.integers(0, 2**32)
)


@given(st.lists(PARTS, min_size=1, max_size=12))
def test_any_frames(drawn: list[tuple[Callable[..., bytes], int, int, int]]) -> None:
    parts = [kind(random.Random(seed), size) for kind, size, _, seed in drawn]
    frames = [frame(part, level) for part, (_, _, level, _) in zip(parts, drawn, strict=True)]
    assert plain(joined(*frames)) == b"".join(parts)


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=6), st.integers(1, 19))
def test_any_bytes(parts: list[bytes], level: int) -> None:
    parts = [part * 3 for part in parts]
    assert plain(joined(*(frame(part, level) for part in parts))) == b"".join(parts)


def test_odd_parameters() -> None:
    """Strategies and sizes that no level has, and the largest counts of sequences."""
    rng = random.Random(9)
    parts, frames = [], []
    for strategy in range(1, 10):
        for min_match in (3, 4, 7):
            for window_log in (10, 17, 23):
                part = words(rng, 150_000, rng.choice((2, 40, 30_000))) + periods(rng, 20_000)
                parts.append(part)
                frames.append(
                    frame(
                        part,
                        3,
                        strategy=strategy,
                        min_match=min_match,
                        window_log=window_log,
                        search_log=4,
                    )
                )
    short = b"".join(rng.choices([b"abc", b"bcd", b"xyz", b"zab"], k=100_000))
    parts.append(short)
    frames.append(frame(short, 19, min_match=3))
    assert plain(joined(*frames)) == b"".join(parts)


def test_a_block_that_would_be_too_large() -> None:
    """One that must be written anew, and reaches the limit, holds its bytes as they are."""
    data = periods(random.Random(2), 20_000)
    made = frame(data)
    anew = make_joinable(made, data)
    assert len(anew) == 1
    size = len(anew[0]) - 3  # of the one block
    assert make_joinable(made, data, size + 1) == anew
    assert make_joinable(made, data, size) == [(len(data) << 3).to_bytes(3, "little") + data]


@pytest.mark.parametrize("level", [3, 9, 19])
def test_what_follows_a_stored_block(level: int) -> None:
    """Blocks that use the codes of one that is stored, of literals or of sequences, cannot stay
    either; others do.
    """
    rng = random.Random(level)
    parts = [
        letters(rng, 100_000) + words(rng, 500_000, 4000),
        periods(rng, 300_000) + letters(rng, 300_000),
        words(rng, 600_000, 900),
    ]
    frames = [frame(part, level) for part in parts]
    stream = joined(*frames, limit=0)
    assert plain(stream) == b"".join(parts)
    assert len(stream) < sum(map(len, frames)) + 500_000


def kinds_of_literals(made: bytes) -> list[int]:
    """Of each compressed block (RFC 8878, 3.1.1.3.1.1): 2 has a tree of its own, 3 takes the last
    one.
    """
    found, at, last = [], 6, False
    while not last:
        word = int.from_bytes(made[at : at + 3], "little")
        last, kind = bool(word & 1), word >> 1 & 3
        found += [made[at + 3] & 3] if kind == 2 else []
        at += 3 + (1 if kind == 1 else word >> 3)
    return found


def test_literals_without_a_tree() -> None:
    """What takes the tree of a block that is stored is stored too, up to one that has its own."""
    rng = random.Random(7)
    parts = []
    for _ in range(40):
        one = letters(rng, 700) + b"a" * 40  # at the distance 1, which every frame begins with
        parts.append(
            one
            + letters(rng, rng.randrange(3000, 9000))
            + bytes(rng.choices(range(40, 60), k=3000))
        )
    frames = [frame(part, 1, window_log=10) for part in parts]  # blocks of 1 KiB
    assert sum(kinds_of_literals(one)[:2] == [2, 3] for one in frames) > 10
    for limit in (BLOCK, 0):
        assert plain(joined(*frames, limit=limit)) == b"".join(parts)
    stored = len(joined(*frames, limit=0))
    assert sum(map(len, frames)) < stored < 0.95 * sum(map(len, parts))


@pytest.mark.parametrize("more", [{"write_checksum": True}, {"write_content_size": True}])
def test_refuses_frames_that_tell_more(more: dict[str, bool]) -> None:
    chosen = zstandard.ZstdCompressionParameters.from_level(
        3, **{"write_checksum": False, "write_content_size": False} | more
    )
    with pytest.raises(ValueError, match="not a zstd frame of that data without"):
        make_joinable(
            zstandard.ZstdCompressor(compression_params=chosen).compress(b"data" * 100),
            b"data" * 100,
        )


def test_refuses_what_is_cut() -> None:
    data = periods(random.Random(3), 3000) + words(random.Random(4), 3000)
    made = frame(data)
    wrong = [(made[:end], data) for end in range(len(made))] + [
        (made + b"\0", data),
        (made, data[:-1]),
        (made, data + b"\0"),
        (made, b""),
    ]
    for one, stands_for in wrong:
        with pytest.raises(ValueError, match="not a zstd frame"):
            make_joinable(one, stands_for)


def test_survives_damage() -> None:
    """Any bytes end in pieces or in ValueError. What a reader refuses may pass, for only the
    sequences are looked into.
    """
    rng = random.Random(5)
    for level in (1, 3, 7, 15):
        data = periods(rng, 4000) + words(rng, 4000)
        made = frame(data, level)
        for _ in range(3000):
            damaged = bytearray(made)
            for _ in range(rng.randrange(1, 4)):
                damaged[rng.randrange(5, len(damaged))] = rng.randrange(256)
            try:
                pieces = make_joinable(bytes(damaged), data, rng.choice((0, 300, BLOCK)))
            except ValueError:
                continue
            assert b"".join(pieces)


@pytest.mark.skipif(not shutil.which("zstd"), reason="the zstd command is not installed")
def test_the_command_reads_it() -> None:
    parts = [kind(random.Random(n), 100_000) for n, kind in enumerate(KINDS * 3)]
    stream = joined(*(frame(part, 1 + n % 19) for n, part in enumerate(parts)))
    assert subprocess.run(
        ["zstd", "-dc", "--memory=200MB"], input=stream, stdout=subprocess.PIPE, check=True
    ).stdout == b"".join(parts)
