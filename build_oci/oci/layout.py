"""An OCI image layout on disk, written so that a reader sees the former image or the new one and nothing in between.

Everything is written to a hidden directory inside the output first, which its build holds locked; `commit` renames the blobs to their
digests and `index.json` last. A build that was killed leaves that directory unlocked, and the next one clears it away.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from build_oci._native.sha256 import Sha256
from build_oci.errors import OutputError
from build_oci.oci.documents import LAYOUT, Descriptor

if TYPE_CHECKING:
    from typing_extensions import Buffer

_PREFIX = ".build-oci-"
# <linux/fs.h>: let a file share the data of another.
_FICLONE = 0x40049409
_FILE_MODE = 0o644
_FOLDER_MODE = 0o755
_ELSEWHERE = "write elsewhere with --output"
_HINTS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), f"free some space, or {_ELSEWHERE}"),
    **dict.fromkeys((errno.EROFS, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM), _ELSEWHERE),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), f"a file is in the way: remove it, or {_ELSEWHERE}"),
    errno.EISDIR: f"a directory is in the way: remove it, or {_ELSEWHERE}",
}


def output_error(error: OSError, path: str) -> OutputError:
    """What went wrong while PATH was being written, in words."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return OutputError(f"cannot be written: {reason}", where=str(path), hint=_HINTS.get(error.errno or 0, ""))


def _upper_folders(path: str) -> list[str]:
    """What PATH lies in, from the top."""
    folders = []
    while (upper := os.path.dirname(path)) not in ("", path):
        folders.append(path := upper)
    return folders[::-1]


def _remove(folder: str) -> None:
    """Remove FOLDER with what is in it: files only, for it is one that a build made."""
    for name in os.listdir(folder):
        os.unlink(os.path.join(folder, name))
    os.rmdir(folder)


def _copy_content(source: int, target: int) -> None:
    with suppress(OSError):
        fcntl.ioctl(target, _FICLONE, source)
        return
    size = os.fstat(source).st_size
    copied = 0
    with suppress(OSError):  # file systems that do not know the call, or of different kinds
        while copied < size and (step := os.copy_file_range(source, target, size - copied, copied, copied)):
            copied += step
    os.lseek(target, copied, os.SEEK_SET)
    while copied < size:
        step = os.sendfile(target, source, copied, size - copied)
        if not step:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        copied += step


class Blob:
    """A blob that is being written; its digest and size stand once it is finished."""

    def __init__(self, layout: Layout, path: str) -> None:
        self._layout = layout
        self._path = path
        self._hash = Sha256()  # not hashlib's, whose import takes 4 ms of every build
        self.size = 0
        self.digest = ""
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
        except OSError as error:
            raise output_error(error, layout.path) from None

    def __enter__(self) -> Blob:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()
        if not self.digest:
            with suppress(OSError):
                os.unlink(self._path)

    def write(self, data: Buffer) -> None:
        """Append DATA."""
        self.append(data)
        self._hash.update(data)

    def append(self, data: Buffer) -> None:
        """Append DATA and leave the digest to the caller, who must do so with all of the blob."""
        view = memoryview(data)
        try:
            written = 0
            while written < len(view):
                written += os.write(self._fd, view[written:])
        except OSError as error:
            raise output_error(error, self._layout.path) from None
        self.size += len(view)

    def finish(self, hexadecimal: str | None = None) -> None:
        """Nothing more comes; the blob takes part in the next commit. HEXADECIMAL is its SHA-256 if it was appended."""
        self._close()
        hexadecimal = hexadecimal or self._hash.digest().hex()
        self.digest = f"sha256:{hexadecimal}"
        self._layout.add(self._path, "sha256", hexadecimal)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            try:
                os.close(fd)
            except OSError as error:  # a full quota may show only here
                raise output_error(error, self._layout.path) from None


class Layout:
    """The layout in the directory `output`, which is made if it is missing. Use it as a context: leaving it without `commit` undoes all."""

    def __init__(self, output: str | os.PathLike[str]) -> None:
        self.path = os.fspath(output)
        self._made: list[str] = []
        self._pending: dict[str, str] = {}
        self._lock = -1
        self._serial = iter(range(1 << 62))

    def __enter__(self) -> Layout:
        try:
            # With the folders of the blobs: what stands in the way there is better known before an hour's work than after it.
            for folder in (*_upper_folders(self.path), self.path, self._final("blobs"), self._final("blobs", "sha256")):
                self._make(folder)
            for document in (self._final("oci-layout"), self._final("index.json")):
                if os.path.isdir(document):
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), document)
            self._clear_stale()
            self._work = self._open_work()
        except OSError as error:
            self._undo()
            raise output_error(error, error.filename or self.path) from None
        except BaseException:
            self._undo()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._undo()

    def blob(self) -> Blob:
        """A new blob; safe to call from several threads."""
        return Blob(self, self.temporary())

    def temporary(self) -> str:
        """A path in the hidden directory that nobody else has; safe to call from several threads."""
        return os.path.join(self._work, str(next(self._serial)))

    def add(self, path: str, algorithm: str, hexadecimal: str) -> None:
        """Let the file PATH, made under a `temporary` path, become the blob of that digest at the next commit."""
        self._pending[path] = self._final("blobs", algorithm, hexadecimal)

    def copy(self, source: int, temporary: str) -> None:
        """Make the file TEMPORARY from the open file SOURCE, sharing its data where the file system can, else within the kernel."""
        try:
            target = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
            try:
                _copy_content(source, target)
            finally:
                os.close(target)
        except OSError as error:
            raise output_error(error, self.path) from None

    def add_document(self, media_type: str, document: bytes) -> Descriptor:
        """Store a JSON document as a blob."""
        with self.blob() as blob:
            blob.write(document)
            blob.finish()
        return Descriptor(media_type, blob.digest, blob.size)

    def commit(self, index: bytes, *, begin: Callable[[], None] = lambda: None) -> None:
        """Make everything visible, INDEX last. Raises OutputError, and what BEGIN raises.

        begin: called when all is written and nothing is visible yet: the last chance to stop. Where it is the disk that fails after that,
            the former index stays, and blobs that nobody refers to may stay too: by then another build may count on them.
        """
        path = self.path
        try:
            for name, document in (("oci-layout", LAYOUT), ("index.json", index)):
                fd = os.open(os.path.join(self._work, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
                with open(fd, "wb") as file:
                    file.write(document)
            for path in dict.fromkeys(os.path.dirname(final) for final in self._pending.values()):
                self._make(os.path.dirname(path))  # a build that made it may have failed meanwhile and taken it away
                self._make(path)
            begin()
            for temporary, path in self._pending.items():
                os.replace(temporary, path)
            for name in ("oci-layout", "index.json"):
                path = self._final(name)
                os.replace(os.path.join(self._work, name), path)
        except OSError as error:
            raise output_error(error, path) from None
        self._made.clear()

    def _final(self, *names: str) -> str:
        return os.path.join(self.path, *names)

    def _make(self, folder: str) -> None:
        """Make FOLDER if it is missing, and remember that we did."""
        if os.path.isdir(folder):
            return
        try:
            os.mkdir(folder, _FOLDER_MODE)
        except FileExistsError:
            if not os.path.isdir(folder):  # else another build was faster
                raise
        else:
            self._made.append(folder)

    def _open_work(self) -> str:
        while True:
            work = self._final(f"{_PREFIX}{os.urandom(8).hex()}")
            os.mkdir(work, _FOLDER_MODE)
            self._made.append(work)
            with suppress(FileNotFoundError):  # taken for a stale one before we had the lock
                self._lock = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(self._lock, fcntl.LOCK_EX)
                os.stat(work)
                return work
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def _clear_stale(self) -> None:
        """Remove what builds that were killed have left: their directories, no longer locked."""
        for name in os.listdir(self.path):
            if not name.startswith(_PREFIX):
                continue
            with suppress(OSError):
                fd = os.open(self._final(name), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(self._final(name))
                finally:
                    os.close(fd)

    def _undo(self) -> None:
        """Remove the hidden directory, and every folder that was made for a build that did not come to its end."""
        if self._lock >= 0:
            with suppress(OSError):
                _remove(self._work)
            with suppress(OSError):  # nothing was written through it, and the image may be complete
                os.close(self._lock)
            self._lock = -1
        for folder in reversed(self._made):
            with suppress(OSError):
                os.rmdir(folder)
        self._made.clear()
