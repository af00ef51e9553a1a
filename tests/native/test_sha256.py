"""SHA-256 against hashlib.

contract: layer-checksum-record: a file's record is its SHA-256. contract: promise-reproducible: the
same bytes whatever the machine, so every kernel equals every other one bit for bit.
"""

from __future__ import annotations

import array
import errno
import hashlib
import mmap
import os
import platform
import random
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from build_oci._native import sha256

KERNELS = [pytest.param(sha256.kernel_id(name), id=name) for name in sha256.kernels()]
every_kernel = pytest.mark.parametrize("kernel", KERNELS)

# FIPS 180-4 and NIST's SHA256ShortMsg vectors.
VECTORS = [
    (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
        b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    ),
    (
        b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
        "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1",
    ),
    (bytes.fromhex("d3"), "28969cdfa74a12c82f3bad960b0b000aca2ac329deea5c2328ebc6f2ba9802c1"),
    (b"a" * 1_000_000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
]

NOISE = random.Random(256).randbytes((1 << 20) + 512)


def expected(buffers: list[memoryview]) -> list[bytes]:
    return [hashlib.sha256(data).digest() for data in buffers]


def mixed_buffers(seed: int, count: int) -> list[memoryview]:
    """COUNT buffers at odd places: empty, around one and two blocks, and long ones now and then."""
    generator = random.Random(seed)
    buffers = []
    for _ in range(count):
        size = generator.choice(
            [
                0,
                generator.randrange(1, 70),
                generator.randrange(110, 140),
                generator.randrange(5000),
            ]
        )
        if generator.random() < 0.02:
            size = generator.randrange(1 << 20)
        start = generator.randrange(len(NOISE) - size)
        buffers.append(memoryview(NOISE)[start : start + size])
    return buffers


@every_kernel
@pytest.mark.parametrize(("message", "hexadecimal"), VECTORS)
def test_published_vectors(kernel: int, message: bytes, hexadecimal: str) -> None:
    assert sha256.digest(message, kernel).hex() == hexadecimal


@every_kernel
def test_every_length_and_alignment(kernel: int) -> None:
    """All ways to pad, at all sixteen alignments of a vector load; alone, and beside its neighbour
    in the other lane.
    """
    buffers = [memoryview(NOISE)[size % 17 : size % 17 + size] for size in range(301)]
    assert [sha256.digest(data, kernel) for data in buffers] == expected(buffers)
    assert sha256.digest_many(buffers, kernel) == expected(buffers)


@pytest.mark.platform
@every_kernel
@given(st.lists(st.integers(0, 1 << 20), max_size=6), st.integers(0, 511))
def test_random_lengths(kernel: int, sizes: list[int], start: int) -> None:
    buffers = [memoryview(NOISE)[start : start + size] for size in sizes]
    assert sha256.digest_many(buffers, kernel) == expected(buffers)


@every_kernel
@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000])
def test_mixes_keep_their_order(kernel: int, count: int) -> None:
    buffers = mixed_buffers(count, count)
    assert sha256.digest_many(buffers, kernel) == expected(buffers)


@every_kernel
@pytest.mark.parametrize("place", [0, 250, 500])
def test_one_large_buffer_among_small_ones(kernel: int, place: int) -> None:
    """The other lane drains the queue, however many jobs that takes, before or after the large one
    began.
    """
    buffers = [memoryview(NOISE)[: size % 200] for size in range(500)]
    buffers.insert(place, memoryview(NOISE))
    assert sha256.digest_many(buffers, kernel) == expected(buffers)


@every_kernel
def test_same_buffer_twice(kernel: int) -> None:
    assert sha256.digest_many([NOISE] * 5, kernel) == expected([memoryview(NOISE)] * 5)


@every_kernel
def test_any_contiguous_buffer(kernel: int) -> None:
    """Read-only and writable, of any item size, of any number of dimensions, and any iterable of
    them.
    """
    with mmap.mmap(-1, 4096) as mapped:
        views = [
            memoryview(b"abcdef")[3:],
            memoryview(bytes(12)).cast("B", (3, 4)),
            memoryview(array.array("d", [1.5, 2.5])),
        ]
        assert sha256.digest_many(iter(views), kernel) == [
            hashlib.sha256(data.tobytes()).digest() for data in views
        ]
        plain = expected([memoryview(b"abc"), memoryview(b"abc"), memoryview(bytes(4096))])
        assert sha256.digest_many((b"abc", bytearray(b"abc"), mapped), kernel) == plain


def test_buffers_are_let_go() -> None:
    """A bytearray can be resized again after a batch, even after one that failed."""
    data = bytearray(b"abc")
    sha256.digest_many([data, data])
    with pytest.raises(TypeError):
        sha256.digest_many([data, "abc", data])  # type: ignore[list-item]
    hasher = sha256.Sha256()
    hasher.update(data)
    data.append(0)


@pytest.mark.parametrize(
    ("data", "error"),
    [("text", TypeError), (None, TypeError), (memoryview(b"abcdef")[::2], BufferError)],
)
def test_what_is_no_plain_buffer(data: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        sha256.digest(data)  # type: ignore[arg-type]
    with pytest.raises(error):
        sha256.Sha256().update(data)  # type: ignore[arg-type]


@pytest.mark.platform
@every_kernel
@given(st.lists(st.integers(0, 1000), max_size=8))
def test_stream_cut_anywhere(kernel: int, cuts: list[int]) -> None:
    """Asking for the digest on the way does not disturb what follows."""
    hasher = sha256.Sha256(kernel)
    for start, end in pairwise(sorted([0, *cuts, 1000])):
        hasher.update(memoryview(NOISE)[start:end])
        assert hasher.digest() == hashlib.sha256(memoryview(NOISE)[:end]).digest()


@pytest.mark.platform
@every_kernel
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=8))
def test_two_streams_cut_anywhere(kernel: int, cuts: list[tuple[int, int]]) -> None:
    ours = sha256.Sha256(kernel), sha256.Sha256(kernel)
    theirs = hashlib.sha256(), hashlib.sha256()
    at, other_at = 0, 500
    for size, other_size in cuts:
        data, other_data = NOISE[at : at + size], NOISE[other_at : other_at + other_size]
        ours[0].update_pair(data, ours[1], other_data)
        theirs[0].update(data)
        theirs[1].update(other_data)
        at, other_at = at + size, other_at + other_size
    assert [one.digest() for one in ours] == [one.digest() for one in theirs]


def test_streams_that_cannot_be_side_by_side() -> None:
    one, other = sha256.Sha256(), sha256.Sha256()
    with pytest.raises(ValueError, match="itself"):
        one.update_pair(b"a", one, b"b")
    with pytest.raises(TypeError):
        one.update_pair(b"a", None, b"b")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        one.update_pair(b"a", other, 5)  # type: ignore[arg-type]
    assert one.digest() == other.digest() == hashlib.sha256().digest()


@every_kernel
def test_stream_byte_by_byte(kernel: int) -> None:
    hasher = sha256.Sha256(kernel)
    for position in range(200):
        hasher.update(NOISE[position : position + 1])
    assert hasher.digest() == hashlib.sha256(NOISE[:200]).digest()


@pytest.mark.platform
def test_length_needs_more_than_32_bits() -> None:
    """The padding counts bits, in 64 of them: 512 MiB are 2**32."""
    ours, theirs = sha256.Sha256(), hashlib.sha256()
    for data in [memoryview(NOISE)[: 1 << 20]] * 512:
        ours.update(data)
        theirs.update(data)
    assert ours.digest() == theirs.digest()


def test_many_threads_share_nothing() -> None:
    """Crew hash at the same time; the calls release the GIL."""
    results: list[bool] = []

    def work(seed: int) -> None:
        buffers = mixed_buffers(seed, 100)
        results.append(sha256.digest_many(buffers) == expected(buffers))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 8


def test_kernels() -> None:
    """Scalar is kernel 0 everywhere, "auto" the last listed, and a name always means the same
    number.
    """
    names = sha256.kernels()
    assert names[0] == "scalar"
    assert sha256.kernel_id("scalar") == 0
    assert sha256.kernel_id("auto") == sha256.kernel_id(names[-1])
    numbers = {
        "scalar": 0,
        "avx2": 1,
        "avx512": 2,
        "sha-ni": 3,
        "sha-ni-avx512": 4,
        "armv8": 5,
    }
    assert all(sha256.kernel_id(name) == numbers[name] for name in names)


@pytest.mark.parametrize(
    "name",
    sorted(
        {"avx2", "avx512", "sha-ni", "sha-ni-avx512", "armv8", "SCALAR", "", "avx9"}
        - set(sha256.kernels())
    ),
)
def test_missing_kernel_is_refused(name: str) -> None:
    """A demand is never answered by another kernel; the error says what there is."""
    with pytest.raises(ValueError, match=f"'{name}'.*auto, {', '.join(sha256.kernels())}$"):
        sha256.kernel_id(name)


@pytest.mark.parametrize(
    "number",
    sorted({-1, 1, 2, 3, 4, 5, 6, 1 << 20} - {sha256.kernel_id(name) for name in sha256.kernels()}),
)
def test_unknown_number_is_refused(number: int) -> None:
    message = f"^{number} is not the number of a SHA-256 kernel"
    with pytest.raises(ValueError, match=message):
        sha256.digest(b"", number)
    with pytest.raises(ValueError, match=message):
        sha256.digest_many([], number)
    with pytest.raises(ValueError, match=message):
        sha256.Sha256(number)


def test_detection_agrees_with_the_operating_system() -> None:
    """What /proc/cpuinfo lists is what there is."""
    x86 = {
        "avx2": {"avx2"},
        "avx512": {"avx512f", "avx512bw"},
        "sha-ni": {"sha_ni", "ssse3", "sse4_1"},
        "sha-ni-avx512": {"sha_ni", "ssse3", "sse4_1", "avx512f", "avx512bw", "GenuineIntel"},
    }
    architectures = {"x86_64": ("flags", x86), "aarch64": ("Features", {"armv8": {"sha2"}})}
    key, needs = architectures.get(platform.machine(), ("", {}))
    try:
        with open("/proc/cpuinfo") as cpuinfo:
            told = [line.split() for line in cpuinfo if key]
        listed = [set(words) for words in told if words and words[0] == key]
        makers = {words[2] for words in told if words and words[0] == "vendor_id"}
    except OSError:
        listed = []
    if not listed:
        pytest.skip("no /proc/cpuinfo of this architecture")
    assert set(sha256.kernels()) == {"scalar"} | {
        name for name, flags in needs.items() if flags <= listed[0] | makers
    }
    assert sha256.in_pairs() == bool({"sha-ni", "armv8"} & set(sha256.kernels()))


@every_kernel
def test_together(kernel: int) -> None:
    """Messages that end at about the same time fill the lanes; a much larger one is not waited
    for, and no thread takes more than its share where two of them would leave others some.
    """
    lanes = {"scalar": 1, "avx2": 8, "avx512": 16, "sha-ni-avx512": 16}
    name = next(name for name in sha256.kernels() if sha256.kernel_id(name) == kernel)
    most = lanes.get(name, 2)
    two = 2 if sha256.in_pairs(kernel) else most
    all_of_it = 1 << 80
    few = [sha256.together([7] * count, all_of_it, kernel) for count in (0, 1, 2)]
    assert few == [0, 1, min(most, 2)]
    assert sha256.together([1 << 80] * 40, 1 << 90, kernel) == most
    assert sha256.together(range(400, 300, -1), all_of_it, kernel) == most
    assert sha256.together([5000, *range(100, 60, -1)], all_of_it, kernel) == two
    for last, expected in ((19, most), (18, two)):
        assert sha256.together([40] * 15 + [last], all_of_it, kernel) == expected
    nine = {"avx2": 8, "avx512": 9}.get(name, min(most, 2))
    assert sha256.together([5] * 9, all_of_it, kernel) == nine
    ten = {"avx2": 8, "avx512": 10, "sha-ni-avx512": 10}.get(name, min(most, 2))
    assert sha256.together([5] * 10, all_of_it, kernel) == ten
    assert sha256.together([0] * 16, 0, kernel) == most
    assert sha256.together([5] * 16, 5 * most, kernel) == most
    assert sha256.together([5] * 16, 5 * 16 - 1, kernel) == (two if most == 16 else most)


@pytest.mark.platform
@every_kernel
@pytest.mark.parametrize("count", [0, 1, 2, 3, 9, 40])
def test_files(kernel: int, count: int, tmp_path: Path) -> None:
    """Files of any sizes, and parts of them, whatever the offset of their descriptors; what cannot
    be read spoils nothing else.
    """
    generator = random.Random(count)
    whole = tmp_path / "file"
    whole.write_bytes(NOISE)
    parts, digests = [], []
    folder = os.open(tmp_path, os.O_RDONLY)
    with whole.open("rb") as file:
        file.seek(77)
        for number in range(count):
            start = generator.choice([0, 1, 64, len(NOISE) - 5, len(NOISE) + 9])
            most = generator.choice([0, 1, 63, 200_000, len(NOISE), 1 << 62])
            broken = number == 4
            parts.append((folder if broken else file.fileno(), start, most))
            digests.append(
                (errno.EISDIR, 0)
                if broken
                else (0, len(NOISE[start:][:most]), hashlib.sha256(NOISE[start:][:most]).digest())
            )
        files = sha256.Files(parts, kernel)
        found = files.run()
        os.close(folder)
        assert found is not None
        assert [one if not one[0] else one[:2] for one in found] == digests
        assert files.done == sum(one[1] for one in found)


def test_hashing_of_files_stops(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        file.truncate(1 << 40)
        files = sha256.Files([(file.fileno(), 0, 1 << 40)])
        timer = threading.Timer(0.05, files.cancel)
        timer.start()
        assert files.run() is None
        timer.join()


def test_import_needs_only_the_stable_abi() -> None:
    """A fresh interpreter loads the extension with every symbol bound at once."""
    code = (
        "import sys, os; sys.setdlopenflags(os.RTLD_NOW); from build_oci._native import sha256;"
        " print(sha256.digest(b'abc').hex())"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == VECTORS[1][1]
