"""`build-oci verify` on layouts that are damaged or hostile (contract: cli-verify,
promise-hostile-input)."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import pytest
from layouts import (
    FIRST,
    INDEX,
    LAYER,
    SECOND,
    ZEROS,
    Layout,
    archive,
    found,
    image,
    layout,
    set_to,
)

from build_oci._native.lower import TarReader
from build_oci.verify import layers, names

__all__ = ["layout"]


def test_hostile_files(layout: Layout) -> None:
    """A FIFO, a directory or a loop in a blob's place neither stops nor misleads."""
    descriptor = image(layout, [FIRST, SECOND])
    path = layout.index(descriptor)
    blob = path / "blobs" / "sha256" / hashlib.sha256(FIRST).hexdigest()
    for make, says in (
        (os.mkfifo, "is no regular file"),
        (os.mkdir, "is no regular file"),
        (lambda at: os.symlink(at, at), "cannot be opened"),
    ):
        blob.unlink() if not blob.is_dir() else blob.rmdir()
        make(blob)
        assert found(path)[0][0].split(": ", 1)[1].startswith(says)
    deep: Any = []
    for _ in range(800):
        deep = [deep]
    for changes in (
        {"config": set_to("rootfs.diff_ids.0", deep)},
        {"manifest": set_to("subject", deep)},
        {"config": set_to("os", deep)},
    ):
        assert len(found(layout.index(image(layout, [SECOND], **changes)))[0]) >= 1
    for text in ("[]", "{", "NaN", '{"manifests": 3}', "\xff"):
        (path / "index.json").write_bytes(text.encode("latin-1"))
        assert len(found(path)[0]) >= 1


def test_one_damage_hides_no_other(layout: Layout) -> None:
    """Whatever is wrong with a document or a blob, all the others are still looked at."""
    bad = archive(("a", b""), ("a", b""))
    damaged = hashlib.sha256(bad).hexdigest()
    for changes in (
        {"manifest": set_to("config", None)},
        {"manifest": set_to("config.digest", ZEROS)},
        {"manifest": set_to("layers.0.digest", "sha256:no")},
        {"manifest": set_to("layers.0.digest", ZEROS)},
        {"manifest": set_to("layers.0.mediaType", "text/plain")},
        {"config": set_to("rootfs.diff_ids", [])},
        {"manifest": set_to("layers.1.size", 1)},
        {"descriptor": set_to("size", 1)},
        {"descriptor": set_to("mediaType", "text/plain")},
    ):
        problems, _ = found(layout.index(image(layout, [FIRST, bad], **changes)))
        assert len(problems) >= 2, changes
        assert f"blobs/sha256/{damaged}: “a” is in it more than once" in problems, changes


def test_a_damaged_blob(layout: Layout) -> None:
    """Where the digest is wrong, that is all there is to say; where it is right, a broken archive
    still has a diff_id.
    """
    path = layout.index(image(layout, [FIRST, SECOND]))
    digest = hashlib.sha256(SECOND).hexdigest()
    blob = path / "blobs" / "sha256" / digest
    blob.write_bytes(b"\0" * 700 + SECOND[700:])
    assert found(path)[0] == [
        f"blobs/sha256/{digest}: is damaged: its content has the digest"
        f" sha256:{hashlib.sha256(blob.read_bytes()).hexdigest()}"
    ]
    blob.write_bytes(SECOND[:-1])
    assert [problem.split(": ")[1][:10] for problem in found(path)[0]] == [
        f"has {len(SECOND) - 1} "[:10],
        "is damaged",
    ]
    blob.write_bytes(b"")
    assert [problem.split(": ")[1][:10] for problem in found(path)[0]] == [
        "has 0 byte",
        "is damaged",
    ]
    large = b"\x1f\x8b" + os.urandom(3 << 20)
    descriptor = layout.blob(large, LAYER + "+gzip")
    blob = path / "blobs" / descriptor["digest"].replace(":", "/")
    blob.write_bytes(large[:-1] + b"?!"[large[-1] == ord("?") :][:1])
    (path / "blobs" / "sha256" / digest).write_bytes(SECOND)
    (problem,) = found(
        layout.index(image(layout, [FIRST], manifest=set_to("layers.0", descriptor)))
    )[0]
    assert "is damaged" in problem
    blob.unlink()
    for broken, what in (
        (FIRST[:700], "the archive is truncated"),
        (b"no archive" * 100, "this is no tar header"),
    ):
        problems, _ = found(
            layout.index(image(layout, [broken], config=set_to("rootfs.diff_ids", [ZEROS])))
        )
        assert [
            says in problem for says, problem in zip((what, f"says {ZEROS}"), problems, strict=True)
        ] == [True, True]


def test_an_index_that_multiplies(layout: Layout) -> None:
    """Seven indexes, each with a hundred times the next: read once each."""
    inner = image(layout, [FIRST])
    for _ in range(7):
        inner = layout.document(
            {"schemaVersion": 2, "mediaType": INDEX, "manifests": [inner] * 100}, INDEX
        )
    assert found(layout.index(inner)) == ([], [])


def test_memory_is_bounded(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "/".join(letter * 240 for letter in "xyz")
    many = archive(*((f"{long}/{number:0100}", b"") for number in range(600)))
    deep = archive(("d/" * 30_000 + "f", b""), ("e/" * 30_000 + "f", b""))
    path = layout.index(
        *(image(layout, [many, FIRST, many[:-512], deep][:count]) for count in (1, 2, 3)),
        image(layout, [deep]),
    )
    monkeypatch.setattr(layers, "_MEMBERS_KEPT", 0)  # archives are read again for the next image
    assert found(path) == ([], [])
    monkeypatch.setattr(names, "_TREE_SLACK", 1 << 16)
    assert {problem.split(": ", 1)[1] for problem in found(path)[0]} == {
        "with it, the names of the image need more memory than so many may have: the rest is not"
        " looked at"
    }
    monkeypatch.setattr(layers, "_MEMBERS_SLACK", 1 << 16)
    assert [
        problem
        for problem in found(path)[0]
        if problem.endswith("need more memory than so many may have")
    ]
    # Neither of two takes that much.
    pair = [
        archive(*((f"{letter}/{long}/{number}", b"") for number in range(600))) for letter in "ab"
    ]
    reader = TarReader()
    reader.feed(pair[0])
    monkeypatch.setattr(layers, "_MEMBERS_SLACK", reader.held * 3 // 2 - 400 * 900)
    monkeypatch.setattr(layers, "_MEMBERS_KEPT", reader.held * 2)
    monkeypatch.setattr(names, "_TREE_SLACK", 1 << 30)
    assert len(found(layout.index(image(layout, pair)))[0]) == 1


def test_hostile_names_are_escaped_and_cut(layout: Layout) -> None:
    name = "a\n\x1b[2J" + "/b" * 5000
    (problem,) = found(layout.index(image(layout, [archive((name, b""), (name, b""))])))[0]
    assert "“a\\x0a\\x1b[2J/b/" in problem
    assert len(problem) < 600
