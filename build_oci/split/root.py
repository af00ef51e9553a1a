"""Opening files below a root without ever leaving it, whatever symbolic links lie there."""

from __future__ import annotations

import errno
import os
import stat

_MOST_LINKS = 40
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# A file that is reached through something else than directories does not exist, which is no
# failure.
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


class RootFiles:
    """Files below the directory `root`.

    A symbolic link that stands for a directory is resolved as if `root` were `/`.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def open_file(self, path: bytes) -> int | None:
        """A descriptor for reading the regular file PATH (relative to the root); the caller closes
        it.

        None where there is no such file, or something else: a symbolic link at the end of PATH is
        not followed. OSError if it cannot be opened.
        """
        *directories, name = [part for part in path.split(b"/") if part not in (b"", b".")] or [b""]
        if name in (b"", b".."):
            return None
        base = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            directory = self._enter(base, directories)
            try:
                # A device is looked at before it is opened, because opening one can do something.
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if not stat.S_ISREG(found.st_mode):
                    return None
                file = os.open(name, _READ, dir_fd=directory)
            finally:
                if directory != base:
                    os.close(directory)
            if stat.S_ISREG(os.fstat(file).st_mode):
                return file
            os.close(file)
            return None
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise
        finally:
            os.close(base)

    def _enter(self, base: int, directories: list[bytes]) -> int:
        """A descriptor of the directory that DIRECTORIES lead to from BASE; BASE itself where there
        are none.
        """
        waiting = directories[::-1]
        entered: list[bytes] = []
        here = base
        links = 0
        try:
            while waiting:
                name = waiting.pop()
                if name in (b"", b"."):
                    continue
                # Up by name, because the kernel's own `..` could lead out of the root.
                if name == b"..":
                    waiting += [*entered[:-1]][::-1]
                    entered = []
                    here = _replace(here, base, base)
                    continue
                following = os.open(name, _LOOK, dir_fd=here)
                mode = os.fstat(following).st_mode
                if stat.S_ISDIR(mode):
                    entered.append(name)
                    here = _replace(here, following, base)
                    continue
                try:
                    links += 1
                    if not stat.S_ISLNK(mode) or links > _MOST_LINKS:
                        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                    target = os.readlink(b"", dir_fd=following)
                finally:
                    os.close(following)
                waiting += target.split(b"/")[::-1]
                if target.startswith(b"/"):
                    entered = []
                    here = _replace(here, base, base)
        except BaseException:
            _replace(here, base, base)
            raise
        return here


def _replace(here: int, following: int, base: int) -> int:
    """FOLLOWING in the place of HERE, which is closed unless it is BASE."""
    if here != base:
        os.close(here)
    return following
