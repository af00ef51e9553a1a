"""Files at paths that the user names: metrics, digests, plans, archives.

A regular file is replaced as a whole, by a new file of the same directory. Symbolic links are
followed. Whatever else stands there (a FIFO, a device, `/dev/stdout`) is written to and never
replaced.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable
from contextlib import suppress

from build_oci.errors import OutputError
from build_oci.oci.transfer import Stream
from build_oci.records import NamedTuple

_DESCRIPTORS = r"/proc/[0-9]+/(task/[0-9]+/)?fd"
_LINKS = 40  # as many as the kernel follows
_LOOK_ABOUT = 0.05  # seconds


class Target(NamedTuple):
    """Where a path of the user's leads.

    `is_file`: a regular file is there, or nothing yet; `descriptor`: one of this process, or -1.
    """

    path: str
    is_file: bool
    descriptor: int = -1

    def open(self, check: Callable[[], None]) -> int:
        """A descriptor for writing to what is no regular file; a FIFO is waited for until somebody
        reads it, with calls of CHECK meanwhile.

        Raises OSError.
        """
        if self.descriptor >= 0:
            return os.dup(self.descriptor)
        while True:
            try:
                return os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            except OSError as error:
                if error.errno != errno.ENXIO or not stat.S_ISFIFO(os.stat(self.path).st_mode):
                    raise
            check()
            time.sleep(_LOOK_ABOUT)


def follow(path: str) -> Target:
    """Where PATH leads. Raises OSError, also for a directory."""
    for _ in range(_LINKS):
        folder, name = os.path.split(path)
        opened_in = os.path.realpath(folder or ".")
        if re.fullmatch(_DESCRIPTORS, opened_in) and name.isdecimal():
            # To open it anew would begin at the start of what it writes to.
            return Target(
                path,
                is_file=False,
                descriptor=int(name) if opened_in == f"/proc/{os.getpid()}/fd" else -1,
            )
        try:
            path = os.path.join(folder, os.readlink(path))
        except OSError:
            break
    else:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return Target(path, is_file=True)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return Target(path, is_file=stat.S_ISREG(mode))


def check_writable(path: str, option: str) -> None:
    """Raises OutputError if nothing can be written to PATH, which OPTION names: better known before
    an hour's work than after it.
    """
    try:
        target = follow(path)
    except OSError as error:
        raise _refused(path, option) from error
    folder = os.path.dirname(target.path) or "."
    if target.is_file and not (os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)):
        raise _refused(path, option)


def _refused(path: str, option: str) -> OutputError:
    return OutputError(
        "no file can be written here",
        where=path,
        hint=f"name a file in a directory that exists with {option}",
    )


def write_file(
    path: str, data: bytes, option: str, check: Callable[[], None] = lambda: None
) -> None:
    """Write DATA to PATH, which OPTION names: a regular file whole or not at all.

    Raises OutputError, and what CHECK raises meanwhile.
    """
    try:
        target = follow(path)
        if target.is_file:
            _replace(target.path, data)
        else:
            fd = target.open(check)
            try:
                Stream(fd, check).write(data)
            finally:
                os.close(fd)
    except OSError as error:
        hint = f"the image itself is built; name a file elsewhere with {option}"
        raise OutputError(f"cannot be written: {error.strerror}", where=path, hint=hint) from None


def _replace(path: str, data: bytes) -> None:
    """Put a file with DATA in the place of the regular file PATH, with the same mode, or where
    there is none yet.
    """
    temporary = os.path.join(os.path.dirname(path), f".build-oci-{os.urandom(8).hex()}.tmp")
    fd = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666
    )
    try:
        with open(fd, "wb") as file:
            file.write(data)
            with suppress(OSError):  # there is none, or the file system has no modes
                os.fchmod(fd, stat.S_IMODE(os.stat(path).st_mode) & 0o777)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
