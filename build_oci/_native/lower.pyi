"""The lower file system, as the layers of a parent image tell of it (docs/contract.md:
diff-merge, promise-hostile-input).
"""

from collections.abc import Callable
from typing import TypedDict

from typing_extensions import Buffer, disjoint_base

class Member(TypedDict):
    """One member of an archive. What the header of a hard link says of the file is compared with
    what the file's own says.
    """

    name: bytes
    """Without leading and closing slashes, empty and "." components; empty for the root."""
    target: bytes | None
    """Of a symbolic link as it stands, of a hard link like a name."""
    hard_link: bool
    ambiguous: bool
    """Clients may read it otherwise, so it never counts as equal to an entry of a tree."""
    mode: int
    """With the type bits; a regular file's for a hard link."""
    uid: int
    gid: int
    size: int
    rdev: int
    mtime_ns: int
    digest: bytes | None
    """32 bytes, of a regular file."""
    xattrs: list[tuple[bytes, bytes]] | None
    """Names and values, sorted, without those that tell of a build host. None: they take more than
    1 KiB, and only their digest is kept.
    """
    xattr_newline: bool
    """Does the value of one of them hold a newline?"""

@disjoint_base
class TarReader:
    """Reads the uncompressed archive of one layer, in pieces of any size. For one thread at a time.

    kernel: number of the SHA-256 kernel, as `build_oci._native.sha256.kernel_id` gives it; by
    default the fastest.
    memory_limit: bytes that the members may take.
    trust: take a checksum record for the digest of a file, instead of computing it and refusing a
    record that says otherwise.
    digest: compute the digest of the whole archive as well, at little cost.
    recipe: compute that of its headers, too (kernel/pack/layer_recipe.h).
    keep: if not, members are forgotten once they are read, so that memory is bounded whatever the
    archive holds.
    whole: keep attributes of files that take more than 1 KiB, and not their digest alone.
    whole_names: count all bytes of every name, as is right where `members` is to give them;
    otherwise a name counts with what it has not in common with the name before, as it is held.
    headers: what is fed are the headers alone, without contents and without the end of the archive;
    as with `trust`.
    """

    def __new__(
        cls,
        *,
        kernel: int | None = None,
        memory_limit: int = ...,
        trust: bool = False,
        digest: bool = False,
        recipe: bool = False,
        keep: bool = True,
        whole: bool = False,
        whole_names: bool = True,
        headers: bool = False,
    ) -> TarReader: ...
    def feed(self, data: Buffer) -> None:
        """The next bytes of the archive, as many as there are. Releases the GIL.

        Raises ValueError("at byte OFFSET: 'NAME': WHAT") for an archive that is broken, hostile or
        not understood, now and at every later call; the name is left out where it is not known.
        Raises MemoryError; RuntimeError after `finish`.
        """

    def seek_through(self, fd: int, start: int, size: int, at: int, most: int) -> int:
        """In place of `feed`: the archive is the SIZE bytes of the file FD from START on, and has
        been read up to AT. Reads it MOST times, a few kilobytes each, and seeks over contents whose
        digest a record tells (`trust`); gives the new AT. Releases the GIL.

        Nothing is sought over where the digest of the archive or its recipe is wanted. Raises as
        `feed`, and OSError.
        """

    def finish(self) -> None:
        """There are no more bytes. Raises as `feed`, also where the archive ends too early."""

    def __len__(self) -> int:
        """Members so far."""

    @property
    def digest(self) -> bytes | None:
        """The SHA-256, 32 bytes, of all that was fed; None where it was not asked for. Of a refused
        archive it means nothing.
        """

    @property
    def recipe(self) -> bytes | None:
        """The recipe of the archive, 32 bytes, after `finish`. None where it was not asked for.

        None also of an archive that no build of ours wrote: padded with anything but zeros, or
        ended otherwise.
        """

    @property
    def held(self) -> int:
        """Bytes that the members so far take; see `whole_names`."""

    def members(self, start: int = 0, stop: int | None = None) -> list[Member]:
        """Those so far, numbers START to STOP in the order of the archive; whiteouts are members
        like others. A copy, for a look inside.
        """

    def capsule(self) -> object:
        """The native members for the other extensions; valid as long as this object lives.
        RuntimeError before `finish`.
        """

    def seen(self) -> object:
        """The native members so far, for `Plan.difference`; valid until the next call of any
        method.
        """

@disjoint_base
class Lower:
    """What the layers of a parent image hold when they are put on top of each other: names over
    inodes, whiteouts applied.

    memory_limit: most bytes that the table may take.
    """

    def __new__(cls, *, memory_limit: int) -> Lower: ...
    def apply(self, reader: TarReader, check: Callable[[], None] | None = None) -> None:
        """Put the next layer, read to its end, on top. Releases the GIL. ValueError when it does
        not fit what is below, or the limit.

        CHECK is called again and again and may raise to stop this; the table is of no use then.
        """

    def claimed_too(self, other: Lower) -> tuple[int, list[bytes]]:
        """How many names this image and OTHER both have, where not both have a directory, and up to
        1,000 of them, sorted.
        """

    def capsule(self) -> object:
        """The native table for the other extensions, from the last `apply` on; valid as long as
        this object lives.
        """
