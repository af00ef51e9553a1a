"""Opening files below a root without ever leaving it, whatever symbolic links lie there."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

_MOST_LINKS = 40
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# A file that is reached through something else than directories does not exist, which is no
# failure.
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
_MOST_OPEN = 16  # directories


class RootFiles:
    """Files below the directory `root`.

    A symbolic link that stands for a directory is resolved as if `root` were `/`. The directories
    that were entered last stay open, so that the next file there takes few calls. Use it as a
    context, which closes them.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        # By their paths, which are names of directories and nothing else; the last used at the end.
        self._entered: dict[bytes, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._entered:
            os.close(self._entered.popitem()[1])

    def open_file(self, path: bytes) -> int | None:
        """A descriptor for reading the regular file PATH (relative to the root); the caller closes
        it.

        None where there is no such file, or something else: a symbolic link at the end of PATH is
        not followed. OSError if it cannot be opened.
        """
        *directories, name = [part for part in path.split(b"/") if part not in (b"", b".")] or [b""]
        if name in (b"", b".."):
            return None
        self._directory(b"")  # to have lost the root is a failure
        try:
            directory = self._enter(directories)
            # A device is looked at before it is opened, because opening one can do something.
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode):
                return None
            file = os.open(name, _READ, dir_fd=directory)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise
        if stat.S_ISREG(os.fstat(file).st_mode):
            return file
        os.close(file)
        return None

    def _enter(self, directories: list[bytes]) -> int:
        """A descriptor of the directory that DIRECTORIES lead to, which stays open until the next
        call.
        """
        waiting = directories[::-1]
        here = b""
        links = 0
        while waiting:
            name = waiting.pop()
            if name in (b"", b"."):
                continue
            # Up by name, because the kernel's own `..` could lead out of the root.
            if name == b"..":
                waiting += here.split(b"/")[:-1][::-1]
                here = b""
                continue
            following = here + b"/" + name if here else name
            if following in self._entered or (target := self._look(here, name)) is None:
                here = following
                continue
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            waiting += target.split(b"/")[::-1]
            if target.startswith(b"/"):
                here = b""
        return self._directory(here)

    def _look(self, here: bytes, name: bytes) -> bytes | None:
        """Open the directory NAME in HERE, or tell the target of the symbolic link of that name."""
        found = os.open(name, _LOOK, dir_fd=self._directory(here))
        try:
            mode = os.fstat(found).st_mode
            if stat.S_ISDIR(mode):
                self._keep(here + b"/" + name if here else name, found)
                return None
            if not stat.S_ISLNK(mode):
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            target = os.readlink(b"", dir_fd=found)
        except BaseException:
            os.close(found)
            raise
        os.close(found)
        return target

    def _directory(self, path: bytes) -> int:
        """The descriptor of PATH, the root or a directory that was entered in this call."""
        if path in self._entered:
            self._entered[path] = found = self._entered.pop(path)
            return found
        assert not path
        found = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._keep(path, found)
        return found

    def _keep(self, path: bytes, found: int) -> None:
        if len(self._entered) == _MOST_OPEN:
            os.close(self._entered.pop(next(iter(self._entered))))
        self._entered[path] = found
