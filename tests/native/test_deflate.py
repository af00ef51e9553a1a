"""Streams that libdeflate ends, made to go on: zlib reads what comes out, and judges what is a
stream at all.
"""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from build_oci._native.deflate import is_incompressible, make_joinable
from build_oci._native.memory import probe_allocation, uninitialised_bytearray

pytestmark = pytest.mark.once

LAST_EMPTY = b"\x03\0"  # a last block with nothing in it

STRATEGIES = (
    zlib.Z_DEFAULT_STRATEGY,
    zlib.Z_FILTERED,
    zlib.Z_HUFFMAN_ONLY,
    zlib.Z_RLE,
    zlib.Z_FIXED,
)


def deflated(
    data: bytes, level: int = 6, strategy: int = zlib.Z_DEFAULT_STRATEGY, blocks: int = 1
) -> bytes:
    stream = zlib.compressobj(level, zlib.DEFLATED, -15, strategy=strategy)
    size = len(data) // blocks + 1
    out = b"".join(
        stream.compress(data[at : at + size]) + stream.flush(zlib.Z_BLOCK)
        for at in range(0, len(data), size)
    )
    return out + stream.flush()


def inflated(stream: bytes) -> bytes:
    """zlib.error unless STREAM is one whole stream and nothing else."""
    reader = zlib.decompressobj(-15)
    data = reader.decompress(stream)
    if not reader.eof or reader.unused_data:
        raise zlib.error("more or less than one stream")
    return data


def continued(*streams: bytes | bytearray) -> bytes:
    """STREAMS, one or two, made to go on, one after the other."""
    changed = [bytearray(stream) for stream in streams]
    make_joinable(*changed)
    return b"".join(changed)


def words(rng: random.Random, size: int, kinds: int = 60) -> bytes:
    some = [rng.randbytes(rng.randrange(1, 9)) for _ in range(kinds)]
    return b"".join(rng.choices(some, k=size // 4 + 1))[:size]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("level", range(10))
def test_every_kind_of_block(level: int, strategy: int) -> None:
    rng = random.Random(level * 10 + strategy)
    for size in (0, 1, 2, 258, 5000, 70_000, 400_000):
        data = (
            words(rng, size // 2) + rng.randbytes(size // 4) + bytes(size - size // 2 - size // 4)
        )
        joined = b"".join(
            continued(deflated(data, level, strategy, blocks)) for blocks in (1, 3, 17)
        )
        assert inflated(joined + LAST_EMPTY) == data * 3


def test_pairs() -> None:
    """Two streams are read side by side, whatever the one and the other are made of."""
    rng = random.Random(11)
    for _ in range(300):
        parts = [
            words(rng, rng.choice((0, 1, 7, 300, 20_000, 90_000)), rng.choice((2, 60, 4000)))
            for _ in range(2)
        ]
        made = [
            deflated(part, rng.randrange(10), rng.choice(STRATEGIES), rng.choice((1, 2, 9)))
            for part in parts
        ]
        joined = continued(*made)
        assert inflated(joined + LAST_EMPTY) == b"".join(parts)
        for first, second in (
            (made[0][:-1], made[1]),
            (made[0], made[1][:-1]),
            (made[0], made[1] + b"\0"),
        ):
            with pytest.raises(ValueError, match="not a whole deflate stream"):
                continued(first, second)


def test_every_way_to_pad() -> None:
    """The last block may end on any bit; each way is met often enough among so many."""
    rng = random.Random(5)
    added = set()
    for size in range(400):
        stream = deflated(data := words(rng, size))
        going_on = continued(stream)
        added.add(len(going_on) - len(stream))
        assert inflated(going_on + going_on + LAST_EMPTY) == data * 2
    assert added == {4, 5}


def test_long_codes() -> None:
    """Literals of 12 to 15 bits and distances of more than 9 are read otherwise than the short
    ones.
    """
    fibonacci = [1, 1]
    while len(fibonacci) < 18:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    data = bytearray(b"".join(bytes([65 + at]) * count for at, count in enumerate(fibonacci)))
    random.Random(3).shuffle(data)
    assert (
        inflated(continued(deflated(bytes(data), strategy=zlib.Z_HUFFMAN_ONLY)) + LAST_EMPTY)
        == data
    )
    far = random.Random(4)
    piece = far.randbytes(32_000)
    data += piece + b"".join(
        piece[at : at + 3 + at % 60] for at in far.choices(range(31_900), k=3000)
    )
    assert inflated(continued(deflated(bytes(data), 9)) + LAST_EMPTY) == data


def codes(lengths: dict[int, int]) -> dict[int, str]:
    """The code of each symbol (RFC 1951, 3.2.2), its first bit first."""
    made, code, before = {}, 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in lengths.items()):
        code <<= length - before
        made[symbol], before, code = f"{code:0{length}b}", length, code + 1
    return made


@pytest.mark.parametrize("longest", range(2, 16))
def test_as_many_bits_as_can_be(longest: int) -> None:
    """Lengths and distances with the most extra bits behind codes of every length, one after the
    other, from every bit of a byte on.
    """
    tail = {9 + at: at for at in range(1, longest)}  # the other symbols
    literals = codes(tail | {256: longest, 284: longest})  # 284: 227 to 257 bytes, 5 extra bits
    # 29: from 24577 on, 13 extra bits.
    distances = codes({at - 1: at for at in range(1, longest)} | {28: longest, 29: longest})
    lengths = [len(literals.get(symbol, "")) for symbol in range(285)] + [
        len(distances.get(symbol, "")) for symbol in range(30)
    ]
    order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]
    # A block that is the last and has codes of its own; sixteen codes of four bits tell their
    # lengths.
    bits = "1" + "01" + f"{285 - 257:05b}"[::-1] + f"{30 - 1:05b}"[::-1] + f"{19 - 4:04b}"[::-1]
    # 4, from the lowest bit on.
    bits += "".join("000" if symbol > 15 else "001" for symbol in order)
    bits += "".join(f"{length:04b}" for length in lengths)
    rng = random.Random(longest)
    for turn in range(200):
        length, distance = rng.randrange(31), rng.randrange(8192)
        bits += literals[284] + f"{length:05b}"[::-1] + distances[29] + f"{distance:013b}"[::-1]
        bits += literals[rng.choice(list(tail))] if turn % 5 == 0 else ""
    bits += literals[256]
    block = bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))
    stream = b"\x00\xff\x7f\x00\x80" + rng.randbytes(0x7FFF) + block
    assert inflated(continued(stream) + LAST_EMPTY) == inflated(stream)
    assert continued(stream, stream) == continued(stream) * 2


def test_no_stream() -> None:
    stream = deflated(b"hello" * 100)
    assert continued(b"\x01\x05\x00\xfa\xffhello") == b"\x00\x05\x00\xfa\xffhello\0\0\0\xff\xff"
    for bad in (
        b"",
        b"\x07",
        stream[:-1],
        stream + b"\0",
        stream + stream,
        b"\x01\x05\x00\xfa\xfehell",
        b"\x01\x05\x00\xfa\xffhell",
    ):
        for streams in ([bad], [bad, stream], [stream, bad]):
            changed = [bytearray(one) for one in streams]
            with pytest.raises(ValueError, match="not a whole deflate stream"):
                make_joinable(*changed)
            assert changed == streams  # as they were
    with pytest.raises(ValueError, match="cannot follow itself"):
        make_joinable(changed[0], changed[0])
    for wrong in (b"bytes", "text", None):
        with pytest.raises(TypeError):
            make_joinable(wrong)  # type: ignore[arg-type]


@given(
    st.binary(max_size=300),
    st.integers(0, 1 << 20),
    st.integers(0, 9),
    st.sampled_from(STRATEGIES),
    st.booleans(),
)
def test_damaged_streams(data: bytes, at: int, level: int, strategy: int, damage: bool) -> None:
    """What zlib takes is taken, and is right; what is taken and zlib refuses was damaged, in a way
    that cannot matter here.
    """
    stream = bytearray(deflated(data * 3, level, strategy))
    if damage:
        stream[at % len(stream)] ^= 1 << at % 8
    try:
        plain = inflated(bytes(stream))
    except zlib.error:
        assert damage
        try:
            continued(stream)
        except ValueError:
            return
    else:
        assert inflated(continued(stream) + LAST_EMPTY) == plain


def test_room() -> None:
    assert len(uninitialised_bytearray(5)) == 5
    for size in (0, (2 << 20) - 1, 2 << 20, 9 << 20):  # with no page of 2 MiB inside, or with some
        made = uninitialised_bytearray(size)
        made[:] = bytes(size)
        assert made == bytes(size)
    probe_allocation(1 << 20)
    with pytest.raises(MemoryError, match="no room for"):
        probe_allocation(1 << 62)


def saved(data: bytes) -> float:
    """The share of DATA that zlib saves at its best."""
    return 1 - len(zlib.compress(data, 9)) / len(data)


def test_incompressible_data_is_not_made_smaller() -> None:
    """Nothing that shrinks by more than two percent looks so; noise, and what is compressed
    already, does.
    """
    rng = random.Random(6)
    size = 1 << 20
    noise = rng.randbytes(size)
    packed = {
        "noise": noise,
        "deflated": zlib.compress(words(rng, 3 * size, 4000), 9)[:size],
        "a little": rng.randbytes(99),
        "noise that is repeated too far away": noise[:70_000] * 4,
        "a few repeats": b"".join(rng.randbytes(9990) + b"repeated!!" for _ in range(100)),
    }
    for name, data in packed.items():
        assert is_incompressible(data), name
        assert saved(data) < 0.02, name
    others = {
        "zeros": bytes(size),
        "text": words(rng, size),
        "six bits a byte": bytes(byte & 63 for byte in noise),
        "one value more often": noise.translate(bytes([65]) * 20 + bytes(range(20, 256))),
        "each half its own values": bytes(byte & 127 for byte in noise[: size // 2])
        + bytes(byte | 128 for byte in noise[size // 2 :]),
        "repeated within the window": noise[:20_000] * 50,
        "repeats of ten bytes": b"".join(rng.randbytes(290) + b"repeated!!" for _ in range(2000)),
        "noise with a run": noise[:900_000] + bytes(100_000),
        "a run with noise": bytes(100_000) + noise[:900_000],
    }
    for name, data in others.items():
        assert not is_incompressible(data), name
        assert saved(data) > 0.01, name


def test_is_incompressible_at_any_size() -> None:
    noise = random.Random(8).randbytes(200_000)
    for size in (*range(70), 16 << 10, 65_535, 65_536, 65_537, 200_000):
        assert is_incompressible(noise[:size])
        assert not is_incompressible(noise[: size // 2] + bytes(size // 2 + 10))
