"""The tree that is split, as the sources of components see it: paths, sizes, links, attributes, and
reading a file of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Protocol

from build_oci.errors import TreeError, counted

MOST_LINE = 1 << 16
_MOST_LINKS = 40
_NO_NAMES = (b"", b".", b"..")
_MOST_REMEMBERED = 100_000  # directories: a data base may name any number of them
_PIECE = 256 << 10
_UNREADABLE = (
    "let the user who builds read it, or leave `packages` out of `split.components`: only package"
    " data bases are read for it"
)


class Paths(Protocol):
    """What is asked here of build_oci._native.walk.Paths, which says what each call does. A tree
    that was not walked has an object of the same form.
    """

    def __getitem__(self, number: int, /) -> bytes: ...
    def __iter__(self) -> Iterator[bytes]: ...
    def __len__(self) -> int: ...
    def find_lines(self, text: bytes, skip: int) -> list[int | None]: ...
    def get(self, path: bytes) -> int | None: ...
    def head(self, number: int, most: int) -> bytes | None: ...


class TreeView(Protocol):
    """One walked tree of n entries.

    The sequences have n elements each, in tar order: a directory stands before what is in it.
    """

    @property
    def root(self) -> str:
        """The path of the tree, for messages."""

    @property
    def paths(self) -> Paths:
        """The path of each entry."""

    @property
    def directories(self) -> Sequence[int]:
        """1 for a directory, else 0."""

    @property
    def sizes(self) -> Sequence[int]:
        """Bytes of a regular file, else 0."""

    @property
    def links(self) -> Sequence[int]:
        """0, or a number that all names of one file have in common and no other entry has."""

    @property
    def symlinks(self) -> Mapping[bytes, bytes]:
        """The target of every symbolic link, by its path; those that lead to no directory may be
        missing.
        """

    @property
    def components(self) -> Mapping[int, bytes]:
        """The extended attribute `user.component` of the entries that have it, by their index."""

    @property
    def intervals(self) -> Mapping[int, bytes]:
        """The extended attribute `user.update-interval`, likewise."""

    def open_file(self, path: bytes) -> int | None:
        """As RootFiles.open_file."""


class TreeIndex:
    """A TreeView with look-up by path.

    `check` is called now and then, and raises to end the work.
    """

    def __init__(self, view: TreeView, check: Callable[[], None] = lambda: None) -> None:
        self.view = view
        self.check = check
        self.paths = view.paths
        self.entry = view.paths.get
        """The index of the entry that has just this path; None where there is none."""
        self._real: dict[bytes, bytes | None] = {b"": b""}

    def find(self, path: bytes) -> int | None:
        """The index of the entry that PATH leads to, directory links on the way resolved inside the
        root; None where there is none.
        """
        found = self.entry(path)
        if found is not None:
            return found
        directory, _, name = path.rpartition(b"/")
        if not name:  # a slash at the end says nothing
            path = path.strip(b"/")
            directory, _, name = path.rpartition(b"/")
        try:
            real = self._real[directory]
        except KeyError:
            real = self.real_directory(directory)
        if real is None:
            return None
        if name in _NO_NAMES:
            real = self.real_directory(path)
            return None if real is None else self.entry(real)
        return self.entry(real + b"/" + name if real else name)

    def real_directory(self, path: bytes) -> bytes | None:
        """The path of the directory that PATH leads to; None where it leads to none."""
        if path in self._real:
            return self._real[path]
        real = self._resolve(path)
        if len(self._real) < _MOST_REMEMBERED:
            self._real[path] = real
        return real

    def _resolve(self, path: bytes) -> bytes | None:
        found = self.entry(path)
        if found is not None and self.view.directories[found]:
            return path
        symlinks = self.view.symlinks
        waiting = path.split(b"/")[::-1]
        here = b""
        links = 0
        while waiting:
            name = waiting.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                here = here.rpartition(b"/")[0]
                continue
            following = here + b"/" + name if here else name
            found = self.entry(following)
            if found is None:
                return None
            if self.view.directories[found]:
                here = following
                continue
            target = symlinks.get(following)
            links += 1
            if target is None or links > _MOST_LINKS:
                return None
            if target.startswith(b"/"):
                here = b""
            waiting += target.split(b"/")[::-1]
        return here

    def below(self, directory: bytes) -> range:
        """The indexes of all that lies in DIRECTORY (directory links resolved), itself left out."""
        real = self.real_directory(directory)
        start = None if real is None else self.entry(real)
        if start is None:
            return range(0)
        # In tar order it is one run.
        end, prefix = start + 1, real + b"/" if real else b""
        while end < len(self.paths) and self.paths[end].startswith(prefix):
            end += 1
        return range(start + 1, end)

    # -- reading files of the tree, which nobody vouches for

    def where(self, path: bytes) -> str:
        """PATH for a message."""
        return os.path.join(self.view.root, os.fsdecode(path)) if path else self.view.root

    def broken(self, path: bytes, what: str) -> TreeError:
        """The error for the file PATH of a package data base that is not as it must be."""
        return TreeError(
            what,
            where=self.where(path),
            hint=(
                "the package data base is damaged: repair it, or leave `packages` out of"
                " `split.components`"
            ),
        )

    def open(self, path: bytes, limit: int) -> int:
        """A descriptor of the regular file PATH, which the caller closes.

        TreeError if it is none or has more than LIMIT bytes.
        """
        try:
            file = self.view.open_file(path)
        except OSError as error:
            raise TreeError(
                f"cannot be opened: {error.strerror}", where=self.where(path), hint=_UNREADABLE
            ) from error
        if file is None:
            raise self.broken(path, "is not a regular file")
        size = os.fstat(file).st_size
        if size > limit:
            os.close(file)
            raise self.broken(path, f"has {counted(size, 'byte')}; at most {limit:,} are read")
        return file

    def read(self, path: bytes, limit: int, *, most: int | None = None) -> bytes:
        """The content of the file PATH, or its first MOST bytes. TreeError as `open`."""
        left = limit if most is None else most
        if (head := self._head(path, limit, left)) is not None:
            return head
        file = self.open(path, limit)
        try:
            pieces = []
            while piece := self._piece(path, file, min(left, _PIECE)):
                pieces.append(piece)
                left -= len(piece)
            return b"".join(pieces)
        finally:
            os.close(file)

    def texts(self, path: bytes, limit: int) -> Iterator[bytes]:
        """The file PATH in pieces of whole lines.

        TreeError as `open`, and for a last line without end: a file that was cut.
        """
        number = 0
        rest = b""
        for piece in self._pieces(path, limit):
            self.check()
            whole = rest + piece
            end = whole.rfind(b"\n") + 1
            text, rest = whole[:end], whole[end:]
            number += text.count(b"\n")
            if len(rest) > MOST_LINE:
                raise self.broken(path, f"line {number + 1} is longer than {MOST_LINE} bytes")
            if text:
                yield text
        if rest:
            raise self.broken(path, f"line {number + 1} has no end: the file is cut")

    def lines(self, path: bytes, limit: int) -> Iterator[bytes]:
        """The lines of the file PATH without their ends. TreeError as `texts`."""
        return chain.from_iterable(map(lines_of, self.texts(path, limit)))

    def _pieces(self, path: bytes, limit: int) -> Iterator[bytes]:
        if (head := self._head(path, limit, _PIECE + 1)) is not None and len(head) <= _PIECE:
            if head:
                yield head
            return
        file = self.open(path, limit)
        try:
            while piece := self._piece(path, file, _PIECE):
                yield piece
        finally:
            os.close(file)

    def _head(self, path: bytes, limit: int, most: int) -> bytes | None:
        """What Paths.head gives, for what is small."""
        index = self.entry(path)
        if index is None or min(most, self.view.sizes[index]) > _PIECE:
            return None
        return self.paths.head(index, most) if self.view.sizes[index] <= limit else None

    def _piece(self, path: bytes, file: int, size: int) -> bytes:
        try:
            return os.read(file, size)
        except OSError as error:
            raise TreeError(
                f"cannot be read: {error.strerror}", where=self.where(path), hint=_UNREADABLE
            ) from error


def lines_of(text: bytes) -> list[bytes]:
    """The lines of TEXT, each of which has an end, without it."""
    lines = text.split(b"\n")
    lines.pop()
    return lines
