"""The hidden directory in which a build writes until all of it is there, and those that builds
which were killed have left.

Its name is `.build-oci-` and 16 hexadecimal digits. It has the mode 0700, and its build holds a
lock (`flock`) on it while it runs. A directory of that name that belongs to us, that nobody else
may enter, that is not locked and that holds only names that a build makes, was left by a build that
was killed: `clear_stale` removes it.

Everything happens relative to open directories, never by path: whoever may rename things in the
directory around can then not make us remove files elsewhere.

Where the file system has no locks, nobody can tell a dead build from a live one. Such a build works
in a directory whose name ends in `-unlocked`. No build removes that but its own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PREFIX = ".build-oci-"
_UNLOCKED = "-unlocked"
_NAME = re.compile(r"\.build-oci-[0-9a-f]{16}(-unlocked)?")
# Compiled when it is first asked for: most builds find nothing to look at.
_CONTENT = r"[0-9]+|oci-layout|index\.json"
_MODE = 0o700
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Others hold the lock of a new directory only for the moment in which they take it for a stale one.
_ATTEMPTS = 100


class HiddenDirectory:
    """A new hidden directory in the directory `folder`. Raises OSError, and leaves nothing then."""

    def __init__(self, folder: str) -> None:
        self._parent = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.fd = -1
        self.name = ""
        try:
            self._make_locked()
        except OSError as error:
            self.remove()
            raise OSError(
                error.errno, os.strerror(error.errno or 0), os.path.join(folder, self.name)
            ) from None
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Remove it with the files that are in it.

        What cannot be removed is left to `clear_stale`.
        """
        if self._parent < 0:
            return
        if self.name:
            self._remove()
        with suppress(OSError):  # nothing was written through it
            os.close(self._parent)
        self._parent = -1

    def others_at_work(self) -> bool:
        """Is another build writing to the same directory, as far as one can tell?"""
        return any(
            name != self.name and _is_alive(name, self._parent)
            for name in _hidden_names(self._parent)
        )

    def clear_stale(self) -> None:
        """Remove what killed builds have left beside this one."""
        for name in _hidden_names(self._parent):
            if name != self.name and not name.endswith(_UNLOCKED):
                with suppress(OSError):
                    _clear(name, self._parent)

    def _make_locked(self) -> None:
        for _ in range(_ATTEMPTS):
            self._make("")
            try:
                self._open()
                has_locks = self._lock()
            except (BlockingIOError, FileNotFoundError):
                # Another build took it for a stale one before we had the lock.
                self._remove()
                continue
            if not has_locks:
                self._remove()
                self._make(_UNLOCKED)
                self._open()
            return
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def _lock(self) -> bool:
        """False: the file system has no locks.

        BlockingIOError and FileNotFoundError: another build was faster.
        """
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            return False
        os.stat(self.name, dir_fd=self._parent, follow_symlinks=False)
        return True

    def _make(self, suffix: str) -> None:
        name = f"{_PREFIX}{os.urandom(8).hex()}{suffix}"
        os.mkdir(name, _MODE, dir_fd=self._parent)
        self.name = name

    def _open(self) -> None:
        self.fd = os.open(self.name, _DIRECTORY, dir_fd=self._parent)

    def _remove(self) -> None:
        try:
            if self.fd < 0:
                # Opening it has failed, so nothing is in it.
                with suppress(OSError):
                    os.rmdir(self.name, dir_fd=self._parent)
            elif not _empty_and_remove(self.name, self.fd, self._parent):
                # A single failing call leaves nothing behind.
                _empty_and_remove(self.name, self.fd, self._parent)
        finally:
            fd, self.fd, self.name = self.fd, -1, ""
            if fd >= 0:
                with suppress(OSError):
                    os.close(fd)


def _hidden_names(folder: int) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if _NAME.fullmatch(name)]
    except OSError:
        return []


def _empty_and_remove(name: str, fd: int, parent: int) -> bool:
    """Remove the files in the open directory FD, and NAME in the open directory PARENT, which was
    FD's name. Is it gone?
    """
    with suppress(OSError):
        for file in os.listdir(fd):
            if re.fullmatch(_CONTENT, file):
                with suppress(OSError):
                    os.unlink(file, dir_fd=fd)
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def _locked(name: str, parent: int) -> Iterator[int]:
    """The directory NAME, open and locked.

    OSError if it is no directory of ours, if others may enter it, or if it cannot be locked.
    """
    fd = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield fd
    finally:
        os.close(fd)


def _clear(name: str, parent: int) -> None:
    with _locked(name, parent) as fd:
        if all(re.fullmatch(_CONTENT, file) for file in os.listdir(fd)):
            _empty_and_remove(name, fd, parent)


def _is_alive(name: str, parent: int) -> bool:
    try:
        with _locked(name, parent):
            return name.endswith(_UNLOCKED)
    except OSError:
        return True
