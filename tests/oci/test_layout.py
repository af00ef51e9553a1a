"""The layout on disk: all or nothing, whoever else writes there (spec 3)."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest

from build_oci.errors import OutputError
from build_oci.oci.layout import Layout


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_commit(tmp_path: Path) -> None:
    """Spec 3: `oci-layout`, `index.json`, blobs under their digest; files 0644, folders 0755, less umask."""
    output = tmp_path / "a" / "b"
    former = os.umask(0o027)
    try:
        with Layout(output) as layout:
            descriptor = layout.add_document("application/x", b"{}")
            layout.commit(b'{"schemaVersion":2}')
    finally:
        os.umask(former)
    blob = output / "blobs" / descriptor.digest.replace(":", "/")
    assert files(output) == ["blobs", "blobs/sha256", f"blobs/sha256/{blob.name}", "index.json", "oci-layout"]
    assert (blob.read_bytes(), descriptor.size) == (b"{}", 2)
    assert json.loads((output / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert {path.stat().st_mode & 0o777 for path in (blob, output / "index.json", output / "oci-layout")} == {0o640}
    assert {path.stat().st_mode & 0o777 for path in (output, output.parent, blob.parent)} == {0o750}


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    """Spec 3: a build that fails leaves the former index as it was and no temporary file; what it made goes away."""
    with Layout(tmp_path / "new" / "folder") as layout:
        layout.add_document("application/x", b"{}")
    assert files(tmp_path) == []
    with Layout(tmp_path) as layout:
        layout.commit(b"{}")
    before = files(tmp_path)
    with Layout(tmp_path) as layout:
        layout.add_document("application/x", b"another")
    assert files(tmp_path) == before
    assert (tmp_path / "index.json").read_bytes() == b"{}"


def test_leftovers_of_the_dead_are_cleared_and_the_living_left_alone(tmp_path: Path) -> None:
    """Spec 3: "the next build clears what a SIGKILL left"; another build at work is no leftover."""
    for name in ("dead", "alive"):
        (tmp_path / f".build-oci-{name}").mkdir()
        (tmp_path / f".build-oci-{name}" / "0").write_text("")
    (tmp_path / "blobs" / "sha256").mkdir(parents=True)
    (tmp_path / "blobs" / "sha256" / "other").write_text("somebody's")
    lock = os.open(tmp_path / ".build-oci-alive", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with Layout(tmp_path) as layout:
        layout.commit(b"{}")
    os.close(lock)
    assert files(tmp_path) == [
        ".build-oci-alive",
        ".build-oci-alive/0",
        "blobs",
        "blobs/sha256",
        "blobs/sha256/other",
        "index.json",
        "oci-layout",
    ]


def write(output: Path) -> None:
    with Layout(output) as layout:
        layout.add_document("application/x", b"{}")
        layout.commit(b"{}")


@pytest.mark.parametrize("name", ["", "blobs", "blobs/sha256", "index.json", "oci-layout"])
def test_what_is_in_the_way_is_named(tmp_path: Path, name: str) -> None:
    """Spec 1: an error names the path; spec 3: a build that fails leaves nothing."""
    output = tmp_path / "output"
    blocked = output / name
    if name.startswith(("index", "oci")):
        blocked.mkdir(parents=True)
    else:
        blocked.parent.mkdir(parents=True, exist_ok=True)
        blocked.write_text("in the way")
    before = files(tmp_path)
    with pytest.raises(OutputError) as caught:
        write(output)
    assert caught.value.where == str(blocked)
    assert "in the way" in caught.value.hint
    assert files(tmp_path) == before


def test_a_copy_is_the_same(tmp_path: Path) -> None:
    """Spec 5: blobs of a parent are copied in the kernel where they cannot be linked."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(3 << 20))
    with Layout(tmp_path / "output") as layout, source.open("rb") as file:
        copy = layout.temporary()
        layout.copy(file.fileno(), copy)
        assert Path(copy).read_bytes() == source.read_bytes()
