"""An OCI image layout as one tar archive (`oci-archive:`), in a file or on standard output.

The blobs are written to a hidden directory first: beside the file, so that the archive can be moved
into its place; in the directory for temporary files where the archive goes to standard output, a
FIFO or a device. Each is removed when it is in the archive, so that disk is needed for the image
and its largest blob.

The archive holds `blobs/` with what is in it, sorted, then `oci-layout`, then `index.json`. Owners
and times are 0, so that the same image is always the same archive.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from build_oci.errors import UsageError
from build_oci.oci.durable import flush_directory, flush_files
from build_oci.oci.hidden import HiddenDirectory
from build_oci.oci.layout import DOCUMENTS, Layout, output_error
from build_oci.oci.output_files import Target, follow
from build_oci.oci.transfer import Stream, copy_file

ARCHIVE = "oci-archive:"
DIRECTORY = "oci:"
_BLOCK = 512
_END = bytes(2 * _BLOCK)


def open_output(output: str | os.PathLike[str], *, sync: bool = True) -> Layout:
    """The layout that OUTPUT names: a directory, `oci:DIRECTORY`, `oci-archive:FILE` or
    `oci-archive:-`. Raises UsageError.
    """
    text = os.fspath(output)
    if not isinstance(output, str) or not text.startswith((ARCHIVE, DIRECTORY)):
        return Layout(text, sync=sync)
    kind, _, path = text.partition(":")
    if not path:
        raise UsageError("the path is empty", where=text, hint=f"name one: `{kind}:PATH`")
    return Archive(path, sync=sync) if text.startswith(ARCHIVE) else Layout(path, sync=sync)


class _Sink(Protocol):
    def write(self, data: bytes) -> None: ...

    def copy(self, source: int) -> int: ...


class _File:
    """The archive as a new file of the hidden directory."""

    def __init__(self, fd: int, check: Callable[[], None], *, sync: bool) -> None:
        self._fd = fd
        self._check = check
        self._sync = sync
        self._size = 0

    def write(self, data: bytes) -> None:
        written = 0
        while written < len(data):
            written += os.pwrite(self._fd, data[written:], self._size + written)
        self._size += written

    def copy(self, source: int) -> int:
        size = copy_file(source, self._fd, self._size, self._check, sync=self._sync)
        self._size += size
        return size


class Archive(Layout):
    """The layout as an archive at the path `target`; `-` is standard output.

    A file that is there is replaced by the whole archive.
    """

    def __init__(self, target: str, *, sync: bool = True) -> None:
        super().__init__(target, sync=sync)
        self._target = (
            Target("standard output", is_file=False, descriptor=1) if target == "-" else None
        )
        self._where = "standard output" if target == "-" else target

    @property
    def folder(self) -> str:
        target = self._followed()
        return os.path.dirname(target.path) or "." if target.is_file else _temporary_folder()

    def commit(self, index: bytes, *, check: Callable[[], None] = lambda: None) -> None:
        """Write the archive, and move it into its place if that is a file.

        Raises OutputError, and what CHECK raises, called meanwhile.
        """
        target = self._followed()
        try:
            self._write_documents(index)
            if target.is_file:
                self._write_file(target.path, check)
            else:
                fd = target.open(check)
                try:
                    self._write_members(Stream(fd, check))
                finally:
                    os.close(fd)
        except OSError as error:
            raise output_error(error, self._where) from None

    def prune(self, warn: Callable[[str], None], explain: Callable[[str], None]) -> None:
        """There is nothing to do: an archive holds what its index reaches."""

    def _followed(self) -> Target:
        if self._target is None:
            try:
                self._target = follow(self.path)
            except OSError as error:
                raise output_error(error, self._where) from None
        return self._target

    def _prepare(self) -> HiddenDirectory:
        target = self._followed()
        if target.descriptor >= 0 and os.isatty(target.descriptor):
            raise UsageError(
                "an archive is not for a terminal",
                where=self._where,
                hint="redirect it: `> FILE`, `| podman load`",
            )
        if (
            target.descriptor >= 0
            and fcntl.fcntl(target.descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        ):
            raise UsageError(
                "is closed", where=self._where, hint="redirect it: `> FILE`, `| podman load`"
            )
        return HiddenDirectory(self.folder)

    def _write_file(self, path: str, check: Callable[[], None]) -> None:
        name = self.temporary()
        fd = self.create(name)
        try:
            self._write_members(_File(fd, check, sync=self.sync))
        finally:
            self.close(fd)
        if self.sync:
            flush_files([name], self._work, check)
        check()
        os.replace(name, path, src_dir_fd=self._work)
        if self.sync:
            # The new archive is there; after a power loss it may be the former one, which is whole
            # as well.
            with suppress(OSError):
                flush_directory(os.path.dirname(path) or ".")

    def _write_members(self, archive: _Sink) -> None:
        files = {
            f"blobs/{digest.replace(':', '/')}": name for name, digest in self._pending.items()
        }
        folders = {"blobs", "blobs/sha256", *map(os.path.dirname, files)}
        for name in sorted([*folders, *files]):
            if name in files:
                self._write_member(archive, name, files[name])
            else:
                archive.write(_header(name, None))
        for name in DOCUMENTS:
            self._write_member(archive, name, name)
        archive.write(_END)

    def _write_member(self, archive: _Sink, name: str, file: str) -> None:
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._work)
        try:
            size = os.fstat(fd).st_size
            archive.write(_header(name, size))
            archive.copy(fd)
            archive.write(bytes(-size % _BLOCK))
        finally:
            os.close(fd)
        self.discard(file)


def _header(name: str, size: int | None) -> bytes:
    """The headers of the file NAME with SIZE bytes; None: it is a directory."""
    # Imported here, because builds into a directory have no use for it.
    from tarfile import DIRTYPE, PAX_FORMAT, TarInfo

    info = TarInfo(name)
    info.mode = 0o644
    if size is None:
        info.type, info.mode = DIRTYPE, 0o755
    info.size = size or 0
    return info.tobuf(PAX_FORMAT)


def _temporary_folder() -> str:
    """Where large temporary files go."""
    candidates = [os.environ.get("TMPDIR"), "/var/tmp", "/tmp"]
    for folder in candidates:
        if folder and os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), "TMPDIR")
