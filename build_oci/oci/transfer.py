"""Bytes on their way out: from file to file within the kernel, and to descriptors behind which
somebody else reads.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from build_oci.oci.durable import WRITE_OUT, start_write_out

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from build_oci.oci.untrusted import FilePart

# <linux/fs.h>: let a file share the data of another.
_FICLONE = 0x40049409
_STEP = 8 << 20  # bytes between two looks at whether to stop
# A pipe that polls as writable takes so many bytes without waiting (PIPE_BUF).
_PIPE_STEP = 4096
_LOOK_ABOUT = 100  # milliseconds


def clone_or_copy(source: FilePart, target: int, check: Callable[[], None], *, sync: bool) -> None:
    """Fill the new file TARGET with the content of SOURCE, sharing its data where the file system
    can. Raises OSError.
    """
    if source.is_whole:
        with suppress(OSError):
            fcntl.ioctl(target, _FICLONE, source.fd)
            return
    copy_file(source.fd, target, 0, check, sync=sync, start=source.start, size=source.size)


def copy_file(
    source: int,
    target: int,
    at: int,
    check: Callable[[], None],
    *,
    sync: bool,
    start: int = 0,
    size: int | None = None,
) -> int:
    """Copy SIZE bytes of the file SOURCE, from START on, to the offset AT of the file TARGET; all
    of it by default. The size in bytes. Raises OSError, and what CHECK raises.

    sync: begin to write it to the disk meanwhile.
    """
    size = os.fstat(source).st_size if size is None else size
    copied = begun = 0
    # Until it turns out that the file systems do not know the call, or are of different kinds.
    in_kernel = True
    while copied < size:
        check()
        step = min(size - copied, _STEP)
        try:
            done = (
                os.copy_file_range(source, target, step, start + copied, at + copied)
                if in_kernel
                else os.sendfile(target, source, start + copied, step)
            )
        except OSError:
            if not in_kernel:
                raise
            done = 0
        if not done and not in_kernel:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if not done:
            in_kernel = False
            os.lseek(target, at + copied, os.SEEK_SET)
        copied += done
        if sync and copied - begun >= WRITE_OUT:
            start_write_out(target, at + begun, copied - begun)
            begun = copied
    return size


class Stream:
    """Writes to the open descriptor `fd`.

    Calls `check` ten times a second while nobody reads; what it raises ends the writing.
    """

    def __init__(self, fd: int, check: Callable[[], None]) -> None:
        self._fd = fd
        self._check = check
        import select

        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._is_pipe = stat.S_ISFIFO(os.fstat(fd).st_mode)

    def write(self, data: Buffer) -> None:
        """Write all of DATA. Raises OSError."""
        view = memoryview(data).cast("B")
        while len(view):
            self._wait()
            with suppress(BlockingIOError):
                view = view[os.write(self._fd, view[: _PIPE_STEP if self._is_pipe else _STEP]) :]

    def copy(self, source: int) -> int:
        """Write all of the file SOURCE; its size in bytes. Raises OSError."""
        size = os.fstat(source).st_size
        copied = 0
        while copied < size:
            self._wait()
            try:
                done = self._copy_some(source, copied, min(size - copied, _STEP))
            except BlockingIOError:
                continue
            except OSError as error:
                # These say that a descriptor takes bytes from user space only.
                if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EBADF):
                    raise
                data = os.pread(source, min(size - copied, 1 << 20), copied)
                self.write(data)
                done = len(data)
            if not done:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            copied += done
        return size

    def _copy_some(self, source: int, offset: int, size: int) -> int:
        if self._is_pipe:
            return os.splice(source, self._fd, size, offset_src=offset, flags=os.SPLICE_F_NONBLOCK)
        return os.sendfile(self._fd, source, offset, size)

    def _wait(self) -> None:
        """Wait until a write would not."""
        self._check()
        while not self._poll.poll(_LOOK_ABOUT):
            self._check()
