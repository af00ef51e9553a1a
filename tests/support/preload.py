"""Libraries that tests load into a run of the command before all others (LD_PRELOAD), also where
the tests themselves run under a sanitizer.
"""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from pathlib import Path

import clients
import pytest

# Libraries that this process was started with: that of a sanitizer (see tools/sanitize), or none.
ABOVE = os.environ.get("LD_PRELOAD", "")
SANITIZED = "libasan" in ABOVE

_kept: list[tempfile.TemporaryDirectory[str]] = []  # removed when the tests end


@functools.cache
def _compiled(source: Path) -> tuple[str, str]:
    """The library made of SOURCE, or why there is none."""
    folder = tempfile.TemporaryDirectory()
    _kept.append(folder)
    library = os.path.join(folder.name, f"{source.stem}.so")
    command = [clients.need("cc"), "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library]
    done = subprocess.run(
        [*command, str(source), "-ldl"], capture_output=True, text=True, check=False,
        env={**os.environ, "LD_PRELOAD": ""},
    )  # fmt: skip
    return (
        (library, "")
        if done.returncode == 0
        else ("", f"the compiler makes no library: {done.stderr[:200]}")
    )


def preload(source: Path) -> dict[str, str]:
    """The environment that loads the library made of SOURCE; the running test is skipped without a
    compiler. A sanitizer's own comes first, as it must, and hands its calls on.
    """
    library, reason = _compiled(source)
    if reason:
        pytest.skip(reason)
    return {"LD_PRELOAD": f"{ABOVE}:{library}" if ABOVE else library}


def need_memory_as_built() -> None:
    """Skips the running test where a sanitizer takes memory of its own: terabytes of addresses, and
    a multiple of what the command takes.
    """
    if SANITIZED:
        pytest.skip("under a sanitizer the memory of a process says nothing")
