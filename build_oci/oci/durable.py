"""What has to be on the disk before the next thing may be: files, then the directory that names
them.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

# Bytes of a file that is being written after which the kernel is asked to begin with writing them
# out: what is left at the end is little.
WRITE_OUT = 32 << 20
# A journal takes several flushes together, so that together they take little longer than one.
_AT_ONCE = 16
_LOOK_ABOUT = 0.1  # seconds
# File systems that have nothing to flush, or no way to do so.
_NEEDLESS = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EROFS)
_SYNC_FILE_RANGE_WRITE = 2


def flush(fd: int) -> None:
    """Wait until the open file or directory FD is on the disk. Raises OSError."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NEEDLESS:
            raise


def flush_directory(path: str) -> None:
    """Wait until the names in the directory PATH are on the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flush(fd)
    finally:
        os.close(fd)


def flush_files(names: Sequence[str], folder: int, check: Callable[[], None]) -> None:
    """Wait until the files NAMES in the open directory FOLDER are on the disk.

    Raises OSError, and what CHECK raises, called meanwhile.
    """
    waiting = deque(names)
    failures: list[OSError] = []

    def work() -> None:
        with suppress(IndexError):
            while not failures:
                _flush_file(waiting.popleft(), folder)

    def work_and_tell() -> None:
        try:
            work()
        except OSError as error:
            failures.append(error)

    threads = [
        threading.Thread(target=work_and_tell, name="flush", daemon=True)
        for _ in range(min(len(names), _AT_ONCE))
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_LOOK_ABOUT)
            while thread.is_alive():
                check()
                thread.join(_LOOK_ABOUT)
    finally:
        waiting.clear()
    if failures:
        raise failures[0]


def _flush_file(name: str, folder: int) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        flush(fd)
    finally:
        os.close(fd)


def start_write_out(fd: int, offset: int, size: int) -> None:
    """Have the kernel begin to write SIZE bytes of the file FD from OFFSET on to the disk; waits
    for nothing, and promises nothing.
    """
    global _sync_file_range
    if _sync_file_range is None:
        _sync_file_range = _find_sync_file_range()
    _sync_file_range(fd, offset, size, _SYNC_FILE_RANGE_WRITE)


_sync_file_range: Callable[[int, int, int, int], int] | None = None


def _find_sync_file_range() -> Callable[[int, int, int, int], int]:
    try:
        from ctypes import CDLL, c_int, c_int64, c_uint

        found = CDLL(None).sync_file_range
    except (ImportError, AttributeError, OSError):  # a build of Python or a C library without it
        return lambda fd, offset, size, flags: 0
    found.argtypes = [c_int, c_int64, c_int64, c_uint]
    found.restype = c_int
    return lambda fd, offset, size, flags: int(found(fd, offset, size, flags))
