"""SHA-256 of batches of 4 MiB cut into equal files: each kernel, and hashlib one file after the
other.

Run with `pytest benchmarks/test_hash.py --benchmark-enable --benchmark-columns=min,ops`: 4 MiB
times OPS is the speed.
"""

from __future__ import annotations

import hashlib
import random

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from build_oci._native import sha256

BATCH = 4 << 20
SIZES = [256, 4 << 10, 64 << 10, 1 << 20]


def files(size: int) -> list[bytes]:
    generator = random.Random(size)
    return [generator.randbytes(size) for _ in range(BATCH // size)]


def hashlib_many(buffers: list[bytes]) -> list[bytes]:
    return [hashlib.sha256(data).digest() for data in buffers]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel", sha256.kernels())
def test_digest_many(benchmark: BenchmarkFixture, kernel: str, size: int) -> None:
    benchmark.group = f"{size} bytes"
    buffers = files(size)
    assert benchmark(sha256.digest_many, buffers, sha256.kernel_id(kernel)) == hashlib_many(buffers)


@pytest.mark.parametrize("size", SIZES)
def test_hashlib(benchmark: BenchmarkFixture, size: int) -> None:
    benchmark.group = f"{size} bytes"
    assert len(benchmark(hashlib_many, files(size))) == BATCH // size


@pytest.mark.parametrize("kernel", sha256.kernels())
def test_stream(benchmark: BenchmarkFixture, kernel: str) -> None:
    """One message alone: what a layer's own digest costs."""
    benchmark.group = "one stream"
    (data,) = files(BATCH)
    assert benchmark(sha256.digest, data, sha256.kernel_id(kernel)) == hashlib.sha256(data).digest()
