"""The standard streams, which may be closed, full or no terminal."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO


def say(line: str) -> None:
    """LINE on standard error, in one piece: several threads may have something to say.

    Nobody listening is no error.
    """
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(line + "\n")
    except (OSError, ValueError):
        return
    finally:
        flush(sys.stderr)


def flush(stream: TextIO | None) -> None:
    """Flushes STREAM; where nobody reads it, the rest goes to /dev/null, else the interpreter exits
    with a status of its own.
    """
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno() if stream is not None else null)
            os.close(null)


def is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def occupy_standard_descriptors() -> None:
    """Opens /dev/null where descriptor 0, 1 or 2 is closed: a blob opened under that number would
    receive what is printed.

    Standard output is then open for reading alone, so that an archive that should go there does not
    vanish.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if descriptor == 1 else os.O_RDWR)
