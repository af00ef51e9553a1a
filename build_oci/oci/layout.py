"""An OCI image layout on disk, written so that a reader sees the former image or the new one and
nothing in between.

Everything is written to a hidden directory inside the output first (see `hidden`). `commit` flushes
the files to the disk, renames the blobs to their digests, flushes the directories that name them,
and renames `index.json` last: an index that is there after a power loss names blobs that are whole.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

from build_oci._native.sha256 import Sha256
from build_oci.errors import OutputError, ParentError, counted, size_text
from build_oci.oci.documents import LAYOUT, Descriptor
from build_oci.oci.durable import WRITE_OUT, flush_directory, flush_files, start_write_out
from build_oci.oci.hidden import HiddenDirectory
from build_oci.oci.transfer import clone_or_copy

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from build_oci.oci.untrusted import FilePart

# Bytes of one write. Linux keeps what one call writes in pieces of memory as large as that, and
# large ones are not always at hand: on a virtual machine (Linux 6.18, ext4) layers without
# compression took 3.96 s with this and 4.84 s with 1 MiB. To compressed ones it made no difference.
_STEP = 256 << 10
_FILE_MODE = 0o644
_FOLDER_MODE = 0o755
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
DOCUMENTS = ("oci-layout", "index.json")  # in the order in which they are put in place
_ELSEWHERE = "write elsewhere with --output"
_OTHER_FILE_SYSTEM = (
    "blobs is on another file system: let all of the layout be on one, for example by a symbolic"
    " link to the whole of it"
)
_HINTS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), f"free some space, or {_ELSEWHERE}"),
    **dict.fromkeys(
        (errno.EROFS, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM),
        _ELSEWHERE,
    ),
    **dict.fromkeys(
        (errno.ENOTDIR, errno.EEXIST), f"a file is in the way: remove it, or {_ELSEWHERE}"
    ),
    errno.EXDEV: _OTHER_FILE_SYSTEM,
    errno.EISDIR: f"a directory is in the way: remove it, or {_ELSEWHERE}",
}


def output_error(error: OSError, path: str) -> OutputError:
    """What went wrong while PATH was being written, in words."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return OutputError(
        f"cannot be written: {reason}", where=str(path), hint=_HINTS.get(error.errno or 0, "")
    )


def _upper_folders(path: str) -> list[str]:
    """What PATH lies in, from the top."""
    folders = []
    while (upper := os.path.dirname(path)) not in ("", path):
        folders.append(path := upper)
    return folders[::-1]


def _is_ours_alone(status: os.stat_result) -> bool:
    """May a file of this STATUS be a blob of ours as it is: nobody else can change it, and
    everybody can read it?
    """
    return status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) in (0o644, 0o444)


class Blob:
    """A blob that is being written; its digest and size stand once it is finished."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._name = layout.temporary()
        self._hash = Sha256()  # not hashlib's, whose import takes 4 ms of every build
        self._begun = 0  # bytes that the kernel was asked to write out
        self.size = 0
        self.digest = ""
        self._fd = layout.create(self._name)

    def __enter__(self) -> Blob:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()
        if not self.digest:
            self._layout.discard(self._name)

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
                written += os.write(self._fd, view[written : written + _STEP])
        except OSError as error:
            raise output_error(error, self._layout.path) from None
        self.size += len(view)
        if self._layout.sync and self.size - self._begun >= WRITE_OUT:
            start_write_out(self._fd, self._begun, self.size - self._begun)
            self._begun = self.size

    def finish(self, hexadecimal: str | None = None) -> None:
        """Nothing more comes; the blob takes part in the next commit.

        HEXADECIMAL is its SHA-256 if it was appended.
        """
        self._close()
        hexadecimal = hexadecimal or self._hash.digest().hex()
        self.digest = f"sha256:{hexadecimal}"
        self._layout.add(self._name, self.digest)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._layout.close(fd)


class Layout:
    """The layout in the directory `output`, which is made if it is missing. Use it as a context:
    leaving it without `commit` undoes all.

    sync: have everything on the disk before `commit` returns; without, a power loss soon after may
    leave an index whose blobs are empty.
    """

    def __init__(self, output: str | os.PathLike[str], *, sync: bool = True) -> None:
        self.path = os.fspath(output)
        self.sync = sync
        self._made: list[str] = []
        self._pending: dict[str, str] = {}  # name in the hidden directory -> digest
        self._hidden: HiddenDirectory | None = None
        self._serial = iter(range(1 << 62))

    def __enter__(self) -> Layout:
        try:
            self._hidden = self._prepare()
            self._hidden.clear_stale()
        except OSError as error:
            self._undo()
            raise output_error(error, error.filename or self.path) from None
        except BaseException:
            self._undo()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._undo()

    @property
    def folder(self) -> str:
        """The directory that the hidden directory is made in."""
        return self.path

    def blob(self) -> Blob:
        """A new blob; safe to call from several threads."""
        return Blob(self)

    def nameless_file(self) -> BinaryIO:
        """A file without a name in the hidden directory, to write and read; safe to call from
        several threads. Raises OutputError.
        """
        name = self.temporary()
        try:
            fd = os.open(
                name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._work
            )
        except OSError as error:
            raise output_error(error, self.path) from None
        self.discard(name)
        return open(fd, "w+b")

    def temporary(self) -> str:
        """A name in the hidden directory that nobody else has; safe to call from several
        threads.
        """
        return str(next(self._serial))

    def create(self, name: str) -> int:
        """A descriptor of the new file NAME in the hidden directory, for writing.

        Raises OutputError.
        """
        try:
            return os.open(name, _NEW_FILE, _FILE_MODE, dir_fd=self._work)
        except OSError as error:
            raise output_error(error, self.path) from None

    def discard(self, name: str) -> None:
        """Remove the file NAME from the hidden directory, if it is there."""
        with suppress(OSError):
            os.unlink(name, dir_fd=self._work)

    def add(self, name: str, digest: str) -> None:
        """Let the file NAME of the hidden directory become the blob DIGEST at the next commit."""
        self._pending[name] = digest

    def carry(
        self,
        source: FilePart,
        path: str | os.PathLike[str],
        digest: str,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Let SOURCE, which is at PATH and was verified, be the blob DIGEST too.

        As a hard link, if it is a file that nobody else can change; else as a copy of the mode 0644
        that shares its data where the file system can, made in the kernel. Raises OutputError, and
        what CHECK raises, called meanwhile.
        """
        name = self.temporary()
        if not (source.is_whole and self._link(source.fd, path, name)):
            target = self.create(name)
            try:
                clone_or_copy(source, target, check, sync=self.sync)
            except OSError as error:
                raise output_error(error, self.path) from None
            finally:
                self.close(target)
        self.add(name, digest)

    def add_document(self, media_type: str, document: bytes) -> Descriptor:
        """Store a JSON document as a blob."""
        with self.blob() as blob:
            blob.write(document)
            blob.finish()
        return Descriptor(media_type, blob.digest, blob.size)

    def commit(self, index: bytes, *, check: Callable[[], None] = lambda: None) -> None:
        """Make everything visible, INDEX last. Raises OutputError, and what CHECK raises.

        check: called until all is written, and a last time before anything is visible: the last
            chance to stop. Where it is the disk that fails after that, the former index stays, and
            blobs that nobody refers to may stay too: by then another build may count on them.
        """
        path = self.path
        try:
            self._write_documents(index)
            folders = dict.fromkeys(
                os.path.dirname(self._blob_path(digest)) for digest in self._pending.values()
            )
            for path in folders:
                # A build that made it may have failed meanwhile and taken it away.
                self._make(os.path.dirname(path))
                self._make(path)
            path = self.path
            if self.sync:
                flush_files([*self._pending, *DOCUMENTS], self._work, check)
            check()
            for name, digest in self._pending.items():
                path = self._blob_path(digest)
                os.replace(name, path, src_dir_fd=self._work)
            self._flush_directories(
                *folders, *(os.path.dirname(folder) for folder in (*folders, *self._made))
            )
            for name in DOCUMENTS:
                path = self._final(name)
                os.replace(name, path, src_dir_fd=self._work)
        except OSError as error:
            raise output_error(error, path) from None
        self._made.clear()
        # The new index is there; after a power loss it may be the former one, which is whole as
        # well.
        with suppress(OSError):
            self._flush_directories(self.path)

    def prune(self, warn: Callable[[str], None], explain: Callable[[str], None]) -> None:
        """Remove the blobs that the index does not reach; to be called after `commit`.

        WARN is told where that cannot be done.
        """
        from build_oci.oci.prune import prune

        assert self._hidden is not None
        try:
            removed = prune(self.path, self._hidden.others_at_work)
        except ParentError as error:
            warn(f"{error}; nothing was pruned")
        except OSError as error:
            warn(f"{error.filename or self.path}: cannot be pruned: {error.strerror}")
        else:
            explain(
                f"{self.path}: {counted(removed.blobs, 'blob')} pruned, {size_text(removed.size)}"
            )

    @property
    def _work(self) -> int:
        """The hidden directory."""
        assert self._hidden is not None
        return self._hidden.fd

    def _prepare(self) -> HiddenDirectory:
        # With the folders of the blobs: what stands in the way there is better known before an
        # hour's work than after it.
        for folder in (
            *_upper_folders(self.path),
            self.path,
            self._final("blobs"),
            self._final("blobs", "sha256"),
        ):
            self._make(folder)
        for document in map(self._final, DOCUMENTS):
            if os.path.isdir(document):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), document)
        blobs = self._final("blobs", "sha256")
        if os.stat(blobs).st_dev != os.stat(self.path).st_dev:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), blobs)
        return HiddenDirectory(self.path)

    def _write_documents(self, index: bytes) -> None:
        for name, document in zip(DOCUMENTS, (LAYOUT, index), strict=True):
            with open(os.open(name, _NEW_FILE, _FILE_MODE, dir_fd=self._work), "wb") as file:
                file.write(document)

    def _link(self, source: int, path: str | os.PathLike[str], name: str) -> bool:
        """Make the file at PATH, which is open as SOURCE, NAME in the hidden directory too, if that
        does no harm. Is it there?
        """
        with suppress(OSError):
            verified = os.fstat(source)
            if not _is_ours_alone(verified):
                return False
            os.link(path, name, dst_dir_fd=self._work, follow_symlinks=False)
            linked = os.stat(name, dir_fd=self._work, follow_symlinks=False)
            if (linked.st_dev, linked.st_ino) == (verified.st_dev, verified.st_ino):
                return True
            self.discard(name)
        return False

    def close(self, fd: int) -> None:
        """Close a descriptor that `create` gave. Raises OutputError."""
        try:
            os.close(fd)
        except OSError as error:  # a full quota may show only here
            raise output_error(error, self.path) from None

    def _flush_directories(self, *paths: str) -> None:
        if self.sync:
            for path in dict.fromkeys(paths):
                flush_directory(path or ".")

    def _blob_path(self, digest: str) -> str:
        return self._final("blobs", *digest.split(":"))

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

    def _undo(self) -> None:
        """Remove the hidden directory, and every folder that was made for a build that did not come
        to its end.
        """
        if self._hidden is not None:
            self._hidden.remove()
            self._hidden = None
        for folder in reversed(self._made):
            with suppress(OSError):
                os.rmdir(folder)
        self._made.clear()
