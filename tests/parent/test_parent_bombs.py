"""Parents that are small and would become large are refused within the memory that is promised
(contract: promise-hostile-input)."""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import archives
import clients
import pytest
from parents import (
    COMPRESS,
    DEEP,
    LAYER,
    built,
    hand_made,
    image_of,
    put,
    put_index,
    put_manifest,
)
from preload import need_memory_as_built

from build_oci.errors import ParentError
from build_oci.parent import lower as parent_lower

pytestmark = pytest.mark.once


# Bombs


def peak(config: clients.Document, output: Path) -> tuple[int, str]:
    """The peak resident memory, in MiB, of a build that fails, and its error."""
    need_memory_as_built()
    script = (
        # not ru_maxrss, which begins with the memory of the process that forked
        "import re, sys; from build_oci.cli.command import main\ntry: main(sys.argv[1:])\nfinally:"
        " print(int(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]) >> 10)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, "-o", output],
        input=json.dumps(config),
        capture_output=True,
        text=True,
        check=False,
    )
    assert not output.exists(), done.stderr
    return int(done.stdout), done.stderr


def deep_names() -> Iterator[bytes]:
    """Names of 32,000 directories, each of them new."""
    for number in range(3000):
        yield archives.pax((b"path", b"%d/%sf" % (number, DEEP))) + archives.header()


@pytest.mark.parametrize(
    ("archive", "says", "most"),
    [
        pytest.param(
            lambda: islice(deep_names(), 300), "more names than there is memory for", 300, id="deep"
        ),
        pytest.param(deep_names, "need more memory than so many may have", 300, id="long"),
        pytest.param(
            lambda: [bytes(64 << 20)] * 160, "zero bytes at the end", 300, id="10 GiB of zeros"
        ),
    ],
)
def test_bombs(
    tmp_path: Path, archive: Callable[[], Iterable[bytes]], says: str, most: int
) -> None:
    """contract: promise-hostile-input. "decompression bombs against the walk's memory"."""
    (tmp_path / "empty").mkdir()
    parent, pack, digest = tmp_path / "parent", functools.cache(COMPRESS["+zstd"]), hashlib.sha256()
    blob = b""
    for piece in archive():
        blob += pack(piece)
        # Zeros are refused long before their end, where the digest counts.
        digest.update(piece if any(piece[:512]) else b"")
    assert len(blob) < 1 << 20
    put_index(
        parent,
        put_manifest(
            parent, [put(parent, blob, LAYER + "+zstd")], [f"sha256:{digest.hexdigest()}"]
        ),
    )
    memory, error = peak({"images": [image_of(tmp_path / "empty", parent)]}, tmp_path / "output")
    assert says in error
    assert memory < most


def test_many_layers_share_one_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """contract: promise-memory. "Bounded memory", however many layers there are."""
    monkeypatch.setattr(parent_lower, "SLACK", 8 << 20)
    (tmp_path / "empty").mkdir()
    tars = [
        b"".join(
            archives.pax((b"path", b"%d/" % name + b"n/" * 30000 + b"n")) + archives.header()
            for name in range(40 * number, 40 * number + 40)
        )
        for number in range(8)
    ]
    with pytest.raises(ParentError, match="so many may have"):
        built(
            tmp_path / "layout", image_of(tmp_path / "empty", hand_made(tmp_path / "parent", *tars))
        )
