"""Which blobs of a layout its index reaches, and the removal of the others (`--prune`)."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from build_oci.errors import ParentError
from build_oci.oci.recorded import recorded_headers
from build_oci.oci.untrusted import ReadDescriptor, Source, parse_descriptor, parse_descriptors
from build_oci.records import NamedTuple

_NAMES = {"sha256": re.compile("[0-9a-f]{64}"), "sha512": re.compile("[0-9a-f]{128}")}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Pruned(NamedTuple):
    """How many blobs were removed, and their size in bytes."""

    blobs: int
    size: int


def prune(
    layout: str, others_at_work: Callable[[], bool], check: Callable[[], None] = lambda: None
) -> Pruned:
    """Remove the blobs of LAYOUT that its index does not reach: regular files named by a sha256 or
    sha512 digest, and nothing else.

    others_at_work: is another build writing to LAYOUT? Its blobs may not be reached yet.

    Raises ParentError, with nothing removed, where a document that the index leads to cannot be
    read; OSError; and what CHECK raises.
    """
    # In this order: what another build adds from here on is not in the list, and what it adds anew
    # is another file.
    there = list(_blobs(layout))
    if others_at_work():
        raise ParentError(
            "another build is writing to this layout",
            where=layout,
            hint="let the next build prune it",
        )
    reached = _reached(Source(Path(layout)), check)
    removed = Pruned(0, 0)
    for algorithm in _NAMES:
        unreached = [
            blob
            for blob in there
            if blob.algorithm == algorithm and f"{algorithm}:{blob.name}" not in reached
        ]
        if unreached:
            with _opened(layout, algorithm) as fd:
                for blob in unreached:
                    check()
                    if blob.is_still_in(fd):
                        os.unlink(blob.name, dir_fd=fd)
                        removed = Pruned(removed.blobs + 1, removed.size + blob.status.st_size)
    return removed


class _Blob(NamedTuple):
    algorithm: str
    name: str
    status: os.stat_result

    def is_still_in(self, folder: int) -> bool:
        """Is this file still the one of its name in the open directory FOLDER?"""
        with suppress(FileNotFoundError):
            now = os.stat(self.name, dir_fd=folder, follow_symlinks=False)
            return (now.st_dev, now.st_ino, now.st_ctime_ns) == (
                self.status.st_dev,
                self.status.st_ino,
                self.status.st_ctime_ns,
            )
        return False


@contextmanager
def _opened(layout: str, algorithm: str) -> Iterator[int]:
    """The directory of the blobs named by ALGORITHM; -1 where it is missing, or where a symbolic
    link leads to somebody else's.
    """
    fds = []
    try:
        try:
            fds.append(os.open(os.path.join(layout, "blobs"), _DIRECTORY))
            fds.append(os.open(algorithm, _DIRECTORY, dir_fd=fds[0]))
        except (FileNotFoundError, NotADirectoryError):
            yield -1
            return
        yield fds[1]
    finally:
        for fd in fds:
            os.close(fd)


def _blobs(layout: str) -> Iterator[_Blob]:
    for algorithm, pattern in _NAMES.items():
        with _opened(layout, algorithm) as fd:
            for name in os.listdir(fd) if fd >= 0 else ():
                if pattern.fullmatch(name):
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        yield _Blob(algorithm, name, status)


def _reached(source: Source, check: Callable[[], None]) -> set[str]:
    """The digests of all that the index of SOURCE leads to.

    Raises ParentError where a document on the way cannot be read.
    """
    where = str(source.path / "index.json")
    waiting = parse_descriptors(source.index(), "manifests", where)
    reached: set[str] = set()
    while waiting:
        check()
        descriptor = waiting.pop()
        if descriptor.digest in reached:
            continue
        reached.add(descriptor.digest)
        document = source.document(descriptor)
        where = str(source.blob_path(descriptor.digest))
        waiting += _descriptors(document, ("manifests",), where)
        for leaf in _descriptors(document, ("config", "layers", "blobs", "subject"), where):
            reached.add(leaf.digest)
            if headers := recorded_headers(leaf.annotations):
                reached.add(headers)
    return reached


def _descriptors(
    document: dict[str, Any], keys: tuple[str, ...], where: str
) -> list[ReadDescriptor]:
    """Those under KEYS of DOCUMENT, each of which holds one descriptor or a list of them."""
    found = []
    for key in keys:
        value = document.get(key)
        items = value if isinstance(value, list) else [] if value is None else [value]
        found += [
            parse_descriptor(item, f"{where}: {key}[{number}]") for number, item in enumerate(items)
        ]
    return found
