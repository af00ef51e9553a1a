"""How fast a layer's stream is compressed and decompressed, by codec and level."""

from __future__ import annotations

import os
import random

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from build_oci.codec.table import decode, encoder
from build_oci.work.pool import Pool

WORKERS = min(4, os.cpu_count() or 1)
PIECE = 1 << 20


@pytest.fixture(scope="module")
def plain() -> bytes:
    """8 MiB that compress to something like half, as a root file system does: words, records of a
    binary kind, noise.
    """
    rng = random.Random(1)
    words = [rng.randbytes(rng.randrange(3, 12)).hex().encode() for _ in range(5000)]
    weights = [1 / rank for rank in range(1, 5001)]
    parts: list[bytes] = []
    for _ in range(64):
        parts.append(b" ".join(rng.choices(words, weights, k=3000)))
        parts.append(
            b"".join(
                number.to_bytes(4, "little") for number in rng.choices(range(1 << 16), k=12000)
            )
        )
        parts.append(rng.randbytes(16000))
    return b"".join(parts)[: 8 << 20]


def compressed(codec: str, level: int | None, plain: bytes, pool: Pool) -> bytes:
    out: list[bytes] = []
    stream = encoder(
        codec, level, lambda piece: out.append(bytes(piece)), pool=pool, workers=WORKERS, epoch=0
    )
    for at in range(0, len(plain), PIECE):
        stream.write(memoryview(plain)[at : at + PIECE])
    stream.finish()
    return b"".join(out)


def note_speed(benchmark: BenchmarkFixture, size: int) -> None:
    if benchmark.stats is not None:  # not when benchmarks are disabled
        benchmark.extra_info["MB/s"] = round(size / 1e6 / benchmark.stats.stats.min)


@pytest.mark.parametrize(
    ("codec", "level"),
    [
        ("disabled", None),
        *(("gzip", level) for level in (1, 3, 5, 6, 9)),
        *(("zstd", level) for level in (1, 3, 6, 9, 12)),
    ],
)
def test_encoder(benchmark: BenchmarkFixture, plain: bytes, codec: str, level: int | None) -> None:
    with Pool(WORKERS) as pool:
        size = len(benchmark(compressed, codec, level, plain, pool))
    benchmark.extra_info["ratio"] = round(size / len(plain), 3)
    note_speed(benchmark, len(plain))


@pytest.mark.parametrize("codec", ["gzip", "zstd", "disabled"])
def test_decode(benchmark: BenchmarkFixture, plain: bytes, codec: str) -> None:
    with Pool(WORKERS) as pool:
        stored = compressed(codec, None, plain, pool)
    chunks = [stored[at : at + PIECE] for at in range(0, len(stored), PIECE)]
    assert benchmark(lambda: sum(map(len, decode(codec, chunks)))) == len(plain)
    note_speed(benchmark, len(plain))
