"""contract: codec-zstd, codec-gzip, codec-bytes, codec-levels.
One frame, one member, bytes that depend on nothing but the data, levels that mean what they say;
the decoder for parents."""

from __future__ import annotations

import gzip
import random
import shutil
import subprocess
import sysconfig
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from build_oci._native import deflate, zstd
from build_oci.codec import gzip as gzip_codec
from build_oci.codec.blocks import Piece
from build_oci.codec.table import block_size, decode, encoder
from build_oci.work.pool import Pool, Task

pytestmark = pytest.mark.once

BLOCK = gzip_codec._DEFLATE_BLOCK
JOB = block_size("zstd", None)
MIB = 1 << 20
SKIPPABLE = b"\x5a\x2a\x4d\x18\x05\0\0\0hello"
ZSTD, GZIP = shutil.which("zstd"), shutil.which("gzip")
NO_EXTERNAL = "the zstd and gzip commands are not installed"


@cache
def corpus(size: int) -> bytes:
    """Text, binaries, noise and zeros, the same for every call: most of it files of this Python."""
    rng = random.Random(4711)
    library = Path(sysconfig.get_path("stdlib"))
    files = [
        path
        for pattern in ("lib-dynload/*.so", "*.py", "[a-rt-z]*/*.py")
        for path in sorted(library.glob(pattern))
    ]
    data = bytearray()
    for number, path in enumerate(files):
        data += path.read_bytes() + bytes(rng.randrange(2000))
        if number % 16 == 0:
            data += rng.randbytes(20_000)
        if len(data) >= size:
            return bytes(data[:size])
    raise AssertionError(f"{library} holds only {len(data)} bytes of files")


def compress(
    codec: str,
    data: bytes,
    level: int | None = None,
    *,
    workers: int = 2,
    cuts: Iterable[int] = (),
    epoch: int | None = None,
) -> bytes:
    """DATA through an encoder, cut at CUTS, out of one buffer that is overwritten after each
    write.
    """
    out: list[bytes] = []
    with Pool(workers) as pool:
        stream = encoder(
            codec,
            level,
            lambda piece: out.append(bytes(piece)),
            pool=pool,
            workers=workers,
            epoch=epoch,
        )
        for start, end in pairwise([0, *sorted(cuts), len(data)]):
            buffer = bytearray(data[start:end])
            stream.write(memoryview(buffer))
            buffer[:] = b"\xff" * len(buffer)
        stream.finish()
    return b"".join(out)


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def decoded(codec: str, data: bytes, chunk: int = 1 << 16) -> bytes:
    return b"".join(map(bytes, decode(codec, pieces(data, chunk))))


def plain_of_one_member(data: bytes) -> bytes:
    member = zlib.decompressobj(31)
    plain = member.decompress(data)
    assert (member.eof, member.unused_data) == (True, b"")
    return plain


def plain_of_one_frame(data: bytes) -> bytes:
    """RFC 8878 by hand: one frame that starts the stream and ends with it, has no checksum and does
    not know its size.
    """
    import zstandard

    assert data[:4] == b"\x28\xb5\x2f\xfd"
    parameters = zstandard.get_frame_parameters(data)
    assert (parameters.has_checksum, parameters.content_size) == (
        False,
        zstandard.CONTENTSIZE_UNKNOWN,
    )
    frame = zstandard.ZstdDecompressor().decompressobj()
    plain = frame.decompress(data)
    assert (frame.eof, frame.unused_data) == (True, b"")
    return plain


PLAIN_OF_ONE: dict[str, Callable[[bytes], bytes]] = {
    "gzip": plain_of_one_member,
    "zstd": plain_of_one_frame,
    "disabled": bytes,
}
ALL_LEVELS = [
    ("disabled", None),
    *(("gzip", level) for level in range(1, 10)),
    *(("zstd", level) for level in range(1, 20)),
]


@pytest.mark.parametrize(("codec", "level"), ALL_LEVELS)
def test_every_level_writes_one_member_or_frame(codec: str, level: int | None) -> None:
    """4.5: one frame, never starting with a skippable one; one member."""
    data = corpus(3 * MIB if level is None or level < 10 else MIB)
    assert PLAIN_OF_ONE[codec](compress(codec, data, level)) == data


@pytest.mark.parametrize("codec", ["gzip", "zstd", "disabled"])
@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, JOB + 1])
def test_sizes_around_the_block(codec: str, size: int) -> None:
    data = corpus(JOB + 1)[:size]
    assert PLAIN_OF_ONE[codec](compress(codec, data)) == data


@pytest.mark.parametrize(
    ("codec", "level"),
    [("gzip", 1), ("gzip", 5), ("zstd", 1), ("zstd", 3), ("zstd", 8), ("zstd", 13)],
)
def test_bytes_depend_on_the_data_alone(codec: str, level: int) -> None:
    """4.5: the bytes do not depend on -j, on the CPU count, or on how the work was cut up in
    time.
    """
    rng = random.Random(level)
    # Two blocks of zstd's at the least, where it has several.
    data = corpus(5 * MIB + 12345) * (2 if codec == "zstd" and level < 13 else 1)
    expected = compress(codec, data, level, workers=1)
    for workers in (2, 7):
        cuts = [rng.randrange(len(data)) for _ in range(40)]
        assert compress(codec, data, level, workers=workers, cuts=cuts) == expected
    assert (
        compress(codec, data, level, cuts=[0, 0, BLOCK, 2 * BLOCK, 2 * BLOCK, len(data)])
        == expected
    )


class Idle(Pool):
    """Threadless: its tasks are run by hand."""

    def __init__(self) -> None:
        super().__init__(0)
        self.tasks: list[Task[Any]] = []

    def put(self, task: Any, urgency: int) -> None:
        self.tasks.append(task)


def test_the_order_of_the_pool_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was submitted last runs first, and only when a result is wanted."""
    pool = Idle()
    wait = Task.wait

    def run_all(task: Task[Any]) -> None:
        most_in_flight.append(len(pool.tasks))
        while pool.tasks:
            pool.tasks.pop().run(cancelled=False)
        wait(task)

    monkeypatch.setattr(Task, "wait", run_all)
    most_in_flight: list[int] = []
    out: list[bytes] = []
    data = corpus(3 * MIB) * 4
    stream = encoder(
        "gzip", 1, lambda piece: out.append(bytes(piece)), pool=pool, workers=2, epoch=None
    )
    stream.write(data)
    stream.finish()
    monkeypatch.undo()
    assert b"".join(out) == compress("gzip", data, 1)
    # 6, bounded memory: nothing piles up behind a slow block.
    assert max(most_in_flight) == 2 * 2 + 2


@pytest.mark.parametrize("codec", ["gzip", "zstd", "disabled"])
def test_whole_blocks(codec: str) -> None:
    """What is added in blocks comes out as what is written, and the memory of each is given back,
    once, when nobody reads it any more.
    """
    size = block_size(codec, None)
    data = corpus(5 * MIB) * 4
    out: list[bytes] = []
    released: list[int] = []
    with Pool(2) as pool:
        stream = encoder(
            codec, None, lambda piece: out.append(bytes(piece)), pool=pool, workers=2, epoch=None
        )
        for number, at in enumerate(range(0, len(data), size)):
            block = bytearray(data[at : at + size])

            def release(number: int = number, block: bytearray = block) -> None:
                released.append(number)
                block[:] = b"\xff" * len(block)

            stream.add(memoryview(block), release)
            stream.poll()
        stream.finish()
    assert sorted(released) == list(range(-(-len(data) // size)))
    assert b"".join(out) == compress(codec, data)
    assert PLAIN_OF_ONE[codec](b"".join(out)) == data


def test_blocks_of_a_frame_that_cannot_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are stored as they are, and those around them are none the worse."""
    real = zstd.make_joinable
    monkeypatch.setattr(zstd, "make_joinable", lambda frame, block: real(frame, block, 0))
    data = corpus(5 * MIB) * 5
    packed = compress("zstd", data)
    assert plain_of_one_frame(packed) == data
    monkeypatch.undo()
    assert len(compress("zstd", data)) < len(packed) < len(compress("zstd", data)) + MIB


@pytest.mark.parametrize("level", range(3, 10))
def test_gzip_of_what_is_packed_already(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise among what is none is left as it is, and what shrinks after all is not: one member,
    hardly larger than without that.
    """
    rng = random.Random(level)
    noise, text = rng.randbytes(BLOCK), corpus(3 * MIB)
    seldom = b"".join(rng.randbytes(124 << 10) + bytes(4 << 10) for _ in range(16))
    repeated = rng.randbytes(20_000) * 60
    cases = (
        noise + text + noise[:5] + text,
        seldom,
        repeated,
        noise[:1],
        text[:BLOCK] + noise + noise,
    )
    packed = [compress("gzip", data, level) for data in cases]
    assert noise[:0xFFFF] in packed[0]
    monkeypatch.setattr(deflate, "is_incompressible", lambda block: False)
    for data, made in zip(cases, packed, strict=True):
        assert plain_of_one_member(made) == data
        assert len(made) <= len(compress("gzip", data, level)) * 1.02 + 20


@pytest.mark.parametrize(
    ("epoch", "mtime"),
    [(None, 0), (0, 0), (1700000000, 1700000000), (2**32 - 1, 2**32 - 1), (2**32 + 5, 5)],
)
def test_gzip_header(epoch: int | None, mtime: int) -> None:
    """4.5: header mtime = SOURCE_DATE_EPOCH or 0, no name."""
    assert (
        compress("gzip", b"x", epoch=epoch)[:10]
        == b"\x1f\x8b\x08\0" + mtime.to_bytes(4, "little") + b"\0\xff"
    )


def test_default_levels() -> None:
    """2: zstd 3, gzip 5."""
    data = corpus(MIB)
    assert compress("zstd", data) == compress("zstd", data, 3) != compress("zstd", data, 4)
    assert compress("gzip", data) == compress("gzip", data, 5) != compress("gzip", data, 4)


@pytest.mark.skipif(not (ZSTD and GZIP), reason=NO_EXTERNAL)
@pytest.mark.parametrize(
    ("codec", "level", "percent"),
    [
        *(("gzip", level, 8 if level <= 3 else 2) for level in range(1, 10)),
        *(("zstd", level, 2) for level in (1, 3, 6, 9, 12, 15)),
    ],
)
def test_a_level_means_what_it_says(codec: str, level: int, percent: int) -> None:
    """4.5: at most 2 % larger than the command with that level, gzip 1-3 at most 8 %."""
    data = corpus((8 if codec == "zstd" and level < 15 else 4) * MIB)
    command = ["zstd", "-q", f"-{level}", "-c"] if codec == "zstd" else ["gzip", "-n", f"-{level}"]
    theirs = len(subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout)
    assert len(compress(codec, data, level)) <= theirs * (1 + percent / 100)


@pytest.mark.skipif(not ZSTD, reason=NO_EXTERNAL)
@pytest.mark.parametrize("level", [2, 3, 5, 7, 8, 9])
def test_a_level_means_what_it_says_of_files_that_repeat_each_other(level: int) -> None:
    """4.5, where matches lie a megabyte apart, as those of licences do: a stream that is cut into
    jobs loses some.
    """
    rng = random.Random(5)
    files = [rng.randbytes(1500) + bytes(rng.choices(b"licence ", k=3000)) for _ in range(250)]
    data = b"".join(
        rng.choice(files) if rng.random() < 0.8 else rng.randbytes(3000) for _ in range(6000)
    )
    theirs = len(
        subprocess.run(
            ["zstd", "-q", f"-{level}", "-c"], input=data, stdout=subprocess.PIPE, check=True
        ).stdout
    )
    assert len(compress("zstd", data, level)) <= theirs * 1.02


@pytest.mark.skipif(not (ZSTD and GZIP), reason=NO_EXTERNAL)
@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_the_commands_read_it(codec: str) -> None:
    data = corpus(3 * MIB)
    assert (
        subprocess.run(
            [codec, "-dc"], input=compress(codec, data), stdout=subprocess.PIPE, check=True
        ).stdout
        == data
    )


def test_an_error_in_a_block_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> bytes:
        raise MemoryError("no room")

    monkeypatch.setattr(gzip_codec, "_deflate", fails)
    with pytest.raises(MemoryError, match="no room"):
        compress("gzip", corpus(3 * MIB))


def test_an_error_in_the_sink_comes_out() -> None:
    def full(_: Piece) -> None:
        raise OSError("full")

    pool = Idle()
    stream = encoder("gzip", 1, full, pool=pool, workers=2, epoch=None)
    stream.write(corpus(3 * MIB) * 2)
    pool.tasks[0].run(cancelled=False)
    with pytest.raises(OSError, match="full"):
        stream.write(corpus(3 * MIB))


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="lzma"):
        decode("lzma", [])
    with pytest.raises(ValueError, match="lzma"):
        compress("lzma", b"")


# ---- decode: 5, "layers inside a layout", and 6, "hostile input": truncated or corrupt archives,
# decompression bombs: one clear error


def zstd_frames(data: bytes, **options: Any) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(**options).compress(data)


def stored(codec: str, data: bytes) -> bytes:
    """DATA as another tool may have stored it."""
    return gzip.compress(data, 6) if codec == "gzip" else zstd_frames(data, write_checksum=True)


@pytest.mark.parametrize("chunk", [1, 7, 1 << 16])
def test_decode_reads_every_member_and_frame(chunk: int) -> None:
    data = corpus(MIB)[: 50_000 if chunk < 100 else MIB]
    half = len(data) // 2
    members = (
        gzip.compress(data[:half]) + gzip.compress(b"") + gzip.compress(data[half:]) + b"\0" * 1000
    )
    assert decoded("gzip", members, chunk) == data
    frames = [
        stored("zstd", data[:half]),
        zstd_frames(b""),
        zstd_frames(data[half:], write_content_size=False),
    ]
    assert decoded("zstd", SKIPPABLE + SKIPPABLE.join(frames) + SKIPPABLE, chunk) == data
    assert decoded("disabled", data, chunk) == data


@pytest.mark.parametrize(
    ("codec", "level"), [("gzip", 1), ("gzip", 6), ("zstd", 1), ("zstd", 19), ("disabled", None)]
)
def test_decode_reads_what_encoder_writes(codec: str, level: int | None) -> None:
    data = corpus(3 * MIB)
    assert decoded(codec, compress(codec, data, level)) == data


def test_decode_reads_window_of_128_mib() -> None:
    """What `zstd --long=27` writes is read; a frame that asks for more memory is refused."""
    import zstandard

    def long(window_log: int) -> bytes:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            1, window_log=window_log, enable_ldm=True
        )
        stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        return stream.compress(b"long" * 50_000) + stream.flush()

    assert decoded("zstd", long(27)) == b"long" * 50_000
    with pytest.raises(ValueError, match="memory"):
        decoded("zstd", long(28))


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_decode_refuses_truncated(codec: str) -> None:
    data = stored(codec, corpus(MIB)[:300_000])
    for end in [*range(40), len(data) // 2, *range(len(data) - 12, len(data))]:
        with pytest.raises(ValueError, match="truncated"):
            decoded(codec, data[:end])
    with pytest.raises(ValueError, match="truncated"):
        decoded(codec, data + data[:2])


@pytest.mark.parametrize("flag", [0x20, 0x40, 0x80])
@pytest.mark.parametrize("chunk", [1, 1 << 16])
@pytest.mark.parametrize("member", [0, 1])
def test_decode_refuses_reserved_flags(flag: int, chunk: int, member: int) -> None:
    """RFC 1952: "must give an error indication if any reserved bit is non-zero", as gzip(1)
    does.
    """
    one = gzip.compress(b"content")
    odd = one[:3] + bytes([flag]) + one[4:]
    data = one * member + odd
    pieces = (data[at : at + chunk] for at in range(0, len(data), chunk))
    with pytest.raises(ValueError, match="reserved flags"):
        b"".join(decode("gzip", pieces))


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_decode_refuses_corrupt(codec: str) -> None:
    """Content and checksum alike."""
    data = stored(codec, corpus(MIB)[:300_000])
    for at in (len(data) // 3, len(data) // 2, len(data) - (6 if codec == "gzip" else 2)):
        with pytest.raises(ValueError, match=r"corrupt|truncated"):
            decoded(codec, data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
    with pytest.raises(ValueError, match=r"gzip stream is corrupt|not a zstd stream"):
        decoded(codec, b"plain text is neither")


@pytest.mark.parametrize("chunk", [1, 1 << 16])
@pytest.mark.parametrize(
    ("codec", "garbage"),
    [
        ("gzip", b"garbage"),
        ("gzip", b"\0\0garbage"),
        ("gzip", b"\0" + gzip.compress(b"", mtime=0)),
        ("zstd", b"garbage"),
    ],
)
def test_decode_refuses_what_follows(codec: str, garbage: bytes, chunk: int) -> None:
    with pytest.raises(ValueError, match=f"not {codec} follows"):
        decoded(codec, stored(codec, b"data") + garbage, chunk)


@pytest.mark.parametrize("codec", ["gzip", "zstd", "disabled"])
def test_decode_gives_small_pieces(codec: str) -> None:
    """A bomb never sits in memory: 200 MB that arrive as one chunk leave in pieces of at most 1
    MiB.
    """
    size = 200_000_000
    bomb = bytes(size) if codec == "disabled" else stored(codec, bytes(size))
    lengths = [len(piece) for piece in decode(codec, [bomb])]
    assert sum(lengths) == size
    assert max(lengths) <= MIB


def test_decode_takes_no_more_than_it_needs() -> None:
    """Streaming: the first piece comes out before the last chunk went in; of zstd, 1 MiB is read at
    a time.
    """
    for codec in ("gzip", "zstd", "disabled"):
        data = corpus(5 * MIB) if codec == "disabled" else stored(codec, corpus(5 * MIB))
        chunks = pieces(data, 1 << 16)
        assert len(list(islice(decode(codec, chunks), 1))) == 1
        assert next(chunks, None) is not None
