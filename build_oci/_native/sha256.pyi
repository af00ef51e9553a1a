"""SHA-256 of many buffers at once, several side by side on one core.

A buffer is any object with the buffer protocol whose bytes stand in one piece, at any alignment;
one in several pieces raises BufferError, an object that is no buffer TypeError. `kernel` is a
number from `kernel_id`, by default that of the fastest; another raises ValueError.
"""

from collections.abc import Iterable

from typing_extensions import Buffer, disjoint_base

def kernels() -> tuple[str, ...]:
    """The kernels this CPU can run, slowest first: always "scalar"; "avx2", "avx512", "sha-ni",
    "sha-ni-avx512" on x86-64 and "armv8" on AArch64 if it can.

    "avx2" hashes eight messages side by side, "avx512" sixteen, and one alone as "scalar" does.
    "sha-ni" and "armv8" hash two. "sha-ni-avx512" is "avx512" for ten messages and more, and
    "sha-ni" for fewer; only CPUs of Intel have it, because it gains nothing on others.
    """

def kernel_id(name: str) -> int:
    """The number of the kernel NAME, or of the fastest for "auto".

    A name is a demand: ValueError, naming those there are, when it is unknown or when this CPU
    lacks it.
    """

def in_pairs(kernel: int = ...) -> bool:
    """Has the CPU instructions for SHA-256, so that one message is as quick as with any library,
    and two take hardly longer?
    """

def together(sizes: Iterable[int], share: int, kernel: int = ...) -> int:
    """How many of the messages of these SIZES (in bytes, the largest first) are best hashed side by
    side by one of several threads, whose part of all the bytes that are left is SHARE.

    A kernel that is not `in_pairs`: as many as it has lanes. Else as many where they end at about
    the same time and have no more bytes than SHARE, so that the other threads have something to do;
    else two. At least 1, but 0 of none.
    """

def digest(data: Buffer, kernel: int = ...) -> bytes:
    """The 32 bytes of DATA's digest. The GIL is released meanwhile."""

def digest_many(buffers: Iterable[Buffer], kernel: int = ...) -> list[bytes]:
    """The digest of each buffer, 32 bytes each, in their order.

    The GIL is released for all of them. Two, eight or sixteen run at a time, as the kernel has
    lanes, taken in order, whatever their sizes; those that end last run alone from where the others
    ended, so much larger buffers are better placed first.
    """

@disjoint_base
class Sha256:
    """The digest of a message that comes in pieces. For one thread at a time."""

    def __new__(cls, kernel: int = ...) -> Sha256: ...
    def update(self, data: Buffer) -> None:
        """Appends DATA to the message. The GIL is released meanwhile."""

    def update_pair(self, data: Buffer, other: Sha256, other_data: Buffer) -> None:
        """Appends DATA to the message and OTHER_DATA to that of OTHER, by one kernel, side by side
        as far as both reach if it has pairs.

        The GIL is released meanwhile. ValueError if OTHER is this one.
        """

    def digest(self) -> bytes:
        """The 32 bytes of the digest of everything so far; more may follow."""

@disjoint_base
class Files:
    """Files that are open for reading, hashed side by side, as many as the kernel has lanes."""

    def __new__(cls, parts: Iterable[tuple[int, int, int]], kernel: int = ...) -> Files:
        """PARTS: of each a descriptor, where in the file to begin, and how many bytes to read at
        the most. The descriptors stay the caller's, whatever their offsets.
        """

    def run(self) -> list[tuple[int, int, bytes]] | None:
        """Reads all of them. Gives, for each in order, the errno of a read that failed or 0, the
        bytes that were read, and the 32 bytes of their digest; None where cancel() was called.

        The GIL is released meanwhile. To be called once.
        """

    @property
    def done(self) -> int:
        """The bytes of all that have been read by now. From any thread."""

    def cancel(self) -> None:
        """Makes run() return within some milliseconds. From any thread."""
