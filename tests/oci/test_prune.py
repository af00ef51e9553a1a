"""`--prune` (contract: cli-prune): blobs of the output that the new index does not reach are
removed, and nothing else ever is.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import clients
import layouts
import pytest

from build_oci.oci.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> layouts.Layout:
    """An image in an index in an index, and what it does not reach."""
    made = layouts.Layout(tmp_path / "layout")
    image = layouts.image(made, [layouts.FIRST])
    inner = made.document({"schemaVersion": 2, "manifests": [image]}, layouts.INDEX)
    outer = made.document({"schemaVersion": 2, "manifests": [inner]}, layouts.INDEX)
    made.index(outer)
    return made


def prune(layout: layouts.Layout) -> tuple[list[str], list[str]]:
    """The warnings of a pruning of LAYOUT, and what it removed."""
    warnings: list[str] = []
    before = blobs(layout)
    index = (layout.path / "index.json").read_bytes()
    with Layout(layout.path) as output:
        output.commit(index)
        output.prune(warnings.append, lambda text: None)
    return warnings, sorted(set(before) - set(blobs(layout)))


def blobs(layout: layouts.Layout) -> list[str]:
    return sorted(str(path.relative_to(layout.path)) for path in layout.path.rglob("*"))


def stray(layout: layouts.Layout, name: str, algorithm: str = "sha256") -> str:
    folder = layout.path / "blobs" / algorithm
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"")
    return f"blobs/{algorithm}/{name}"


def test_what_the_index_reaches_stays(layout: layouts.Layout) -> None:
    assert prune(layout) == ([], [])


def test_what_it_does_not_reach_is_removed(layout: layouts.Layout) -> None:
    gone = [stray(layout, "0" * 64), stray(layout, "f" * 128, "sha512")]
    assert prune(layout) == ([], gone)


def test_the_subject_of_a_manifest_stays(layout: layouts.Layout) -> None:
    subject = layout.blob(b"signed", "application/octet-stream")
    layout.index(layouts.image(layout, [], manifest=layouts.set_to("subject", subject)))
    assert f"blobs/{subject['digest'].replace(':', '/')}" not in prune(layout)[1]


def test_nothing_else_is_removed(layout: layouts.Layout, tmp_path: Path) -> None:
    """Other names, other algorithms, directories, symbolic links and what they lead to."""
    stray(layout, "0" * 63)
    stray(layout, "A" * 64)
    stray(layout, "0" * 64 + ".txt")
    stray(layout, "0" * 64 + "\n")
    stray(layout, "0" * 64, "blake3")
    (layout.path / "blobs" / "sha256" / ("1" * 64)).mkdir()
    (layout.path / "blobs" / "sha256" / ("2" * 64)).symlink_to(tmp_path)
    (layout.path / ("3" * 64)).write_bytes(b"")
    assert prune(layout) == ([], [])


@pytest.mark.parametrize("linked", ["blobs", "blobs/sha256"])
def test_blobs_elsewhere_are_left_alone(
    layout: layouts.Layout, tmp_path: Path, linked: str
) -> None:
    """Behind a symbolic link they may be those of several layouts."""
    stray(layout, "0" * 64)
    elsewhere = tmp_path / "elsewhere"
    (layout.path / linked).rename(elsewhere)
    (layout.path / linked).symlink_to(elsewhere)
    assert prune(layout) == ([], [])
    assert list(elsewhere.rglob("0" * 64))


@pytest.mark.parametrize("harm", ["missing", "damaged", "no JSON", "no descriptor", "a path"])
def test_nothing_is_removed_where_a_document_cannot_be_read(
    layout: layouts.Layout, harm: str
) -> None:
    stray(layout, "0" * 64)
    broken = layout.blob(
        b"[" if harm == "no JSON" else b'{"layers": [1]}' if harm == "no descriptor" else b"{}",
        layouts.MANIFEST,
    )
    path = layout.path / "blobs" / broken["digest"].replace(":", "/")
    if harm == "missing":
        path.unlink()
    elif harm == "damaged":
        path.write_bytes(b"[]")
    elif harm == "a path":
        broken["digest"] = "sha256:../../index.json"
    layout.index(layouts.image(layout, []), broken)
    (warning,), removed = prune(layout)
    assert warning.startswith(f"{layout.path}/")
    assert warning.endswith("; nothing was pruned")
    assert removed == []


def test_nothing_is_removed_while_another_build_is_at_work(layout: layouts.Layout) -> None:
    """Its blobs may be in place before its index is."""
    stray(layout, "0" * 64)
    with Layout(layout.path):
        warnings, removed = prune(layout)
    assert warnings == [
        f"{layout.path}: another build is writing to this layout; nothing was pruned"
    ]
    assert removed == []


def test_a_blob_that_another_build_has_just_written_stays(
    layout: layouts.Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the name of one that was there, but is another file."""
    name = stray(layout, hashlib.sha256(b"").hexdigest())
    look = os.listdir

    def listdir(folder: int | str) -> list[str]:
        names = look(folder)
        if any(len(name) == 64 for name in names):
            monkeypatch.setattr(os, "stat", rewriting)
        return names

    real = os.stat
    asked = 0

    def rewriting(path: str | int, **more: object) -> os.stat_result:
        nonlocal asked
        asked += path == Path(name).name
        if asked == 2:
            (layout.path / "new").write_bytes(b"")
            (layout.path / "new").replace(layout.path / name)
        return real(path, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "listdir", listdir)
    warnings, removed = prune(layout)
    assert asked >= 2
    assert (warnings, removed) == ([], [])


def test_the_option(tmp_path: Path) -> None:
    """Layers of the former image go, those of the new one stay."""
    for content in ("a", "b"):
        (tmp_path / content).mkdir()
        (tmp_path / content / "file").write_text(content)
        done = clients.run_build(
            clients.layer_config(tmp_path / content),
            tmp_path / "output",
            args=["--prune"],
            cwd=tmp_path,
        )
        assert done.stderr == ""
    assert len(list((tmp_path / "output" / "blobs" / "sha256").iterdir())) == 3
    clients.layer_tars(tmp_path / "output")
    assert json.loads((tmp_path / "output" / "index.json").read_text())["manifests"]
