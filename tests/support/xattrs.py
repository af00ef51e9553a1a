"""The os module's functions for extended attributes, through libc, where CPython leaves them out:
it asks for glibc, so on musl it does.
"""

from __future__ import annotations

import ctypes
import os

LIMIT = 1 << 16  # bytes: the kernel's, of a value and of a list of names


def call(
    name: str, path: str | bytes | int | os.PathLike[str], follow: bool, *arguments: object
) -> int:
    """What the system call NAME returns, in its variant for a descriptor or a path; OSError
    otherwise.
    """
    variant = "f" if isinstance(path, int) else "" if follow else "l"
    function = ctypes.CDLL(None, use_errno=True)[variant + name]
    function.restype = ctypes.c_ssize_t
    result: int = function(path if isinstance(path, int) else os.fsencode(path), *arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


def setxattr(
    path: str | bytes | int | os.PathLike[str],
    attribute: str | bytes,
    value: bytes,
    flags: int = 0,
    *,
    follow_symlinks: bool = True,
) -> None:
    call(
        "setxattr",
        path,
        follow_symlinks,
        os.fsencode(attribute),
        bytes(value),
        ctypes.c_size_t(len(value)),
        flags,
    )


def getxattr(
    path: str | bytes | int | os.PathLike[str],
    attribute: str | bytes,
    *,
    follow_symlinks: bool = True,
) -> bytes:
    room = ctypes.create_string_buffer(LIMIT)
    length = call(
        "getxattr", path, follow_symlinks, os.fsencode(attribute), room, ctypes.c_size_t(LIMIT)
    )
    return room.raw[:length]


def listxattr(
    path: str | bytes | int | os.PathLike[str] = ".", *, follow_symlinks: bool = True
) -> list[str]:
    room = ctypes.create_string_buffer(LIMIT)
    length = call("listxattr", path, follow_symlinks, room, ctypes.c_size_t(LIMIT))
    return [os.fsdecode(name) for name in room.raw[:length].split(b"\0")[:-1]]


def complete() -> None:
    """Gives os the functions that it lacks."""
    for function in (setxattr, getxattr, listxattr):
        if not hasattr(os, function.__name__):
            setattr(os, function.__name__, function)
