"""What is held of parents is bounded by their entries, and freed after the last image on them."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import archives
import clients
import pytest
from parents import built, hand_made, image_of, top_layer

from build_oci._native.lower import Lower, TarReader
from build_oci.oci.untrusted import LAYER_COST
from build_oci.parent import layers as parent_layers
from build_oci.parent.use import most_in_use

pytestmark = pytest.mark.once


def reader_of(tar: bytes, *, whole: bool = False) -> TarReader:
    reader = TarReader(memory_limit=1 << 26, whole=whole)
    reader.feed(tar + archives.END)
    reader.finish()
    return reader


@pytest.mark.parametrize(("size", "kept"), [(1024 - 8 - 6, True), (1024 - 8 - 6 + 1, False)])
def test_large_attributes_are_kept_as_a_digest(size: int, kept: bool) -> None:
    (member,) = reader_of(
        archives.pax((b"SCHILY.xattr.user.a", b"v" * size)) + archives.header()
    ).members()
    assert member["xattrs"] == ([(b"user.a", b"v" * size)] if kept else None)
    large = archives.pax((b"SCHILY.xattr.user.a", b"v" * 2000))
    assert reader_of(large + archives.header()).held < 2000
    for written in (
        reader_of(large + archives.header(), whole=True),
        reader_of(large + archives.header(b"d", b"5")),
    ):
        assert written.members()[0]["xattrs"] == [(b"user.a", b"v" * 2000)]


@pytest.mark.parametrize("size", [900, 1010, 1011, 3000])
def test_large_attributes_are_compared(size: int, tmp_path: Path) -> None:
    """Equal ones are no change; one bit of one is, and so is another name."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "f").write_bytes(b"f")
    value = os.urandom(size)
    try:
        os.setxattr(tree / "f", "user.a", value)
    except OSError as error:
        pytest.skip(f"the file system takes no such attribute: {error}")
    parent = built(tmp_path / "parent", image_of(tree), epoch=1)
    assert top_layer(built(tmp_path / "same", image_of(tree, parent), epoch=1)) == ["."]
    os.setxattr(tree / "f", "user.a", value[:-1] + bytes([value[-1] ^ 1]))
    assert top_layer(built(tmp_path / "bit", image_of(tree, parent), epoch=1)) == [".", "./f"]
    os.removexattr(tree / "f", "user.a")
    os.setxattr(tree / "f", "user.b", value)
    assert top_layer(built(tmp_path / "name", image_of(tree, parent), epoch=1)) == [".", "./f"]


@pytest.mark.parametrize("same", [True, False])
def test_large_attributes_of_hard_links(same: bool, tmp_path: Path) -> None:
    """A link whose header claims other large attributes than the file's leaves the file in
    doubt.
    """
    value = b"v" * 3000
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "f").touch()
    (tree / "g").hardlink_to(tree / "f")
    try:
        os.setxattr(tree / "f", "user.a", value)
    except OSError as error:
        pytest.skip(f"the file system takes no such attribute: {error}")
    os.utime(tree / "f", (1, 1))
    (tree / "f").chmod(0o644)
    owner: dict[str, Any] = {"uid": os.getuid(), "gid": os.getgid(), "mtime": 1}
    link = archives.pax((b"SCHILY.xattr.user.a", value if same else b"w" * 3000)) + archives.header(
        b"g", b"1", link=b"f", **owner
    )
    tar = (
        archives.pax((b"SCHILY.xattr.user.a", value))
        + archives.header(b"f", **owner)
        + link
        + archives.END
    )
    layout = built(tmp_path / "new", image_of(tree, hand_made(tmp_path / "parent", tar)), epoch=1)
    assert top_layer(layout) == (["."] if same else [".", "./f", "./g"])


@pytest.mark.parametrize("size", [20, 2000])
def test_newlines_in_attributes(size: int) -> None:
    (member,) = reader_of(
        archives.pax((b"SCHILY.xattr.user.a", b"v" * size)) + archives.header()
    ).members()
    assert not member["xattr_newline"]
    (first, second) = reader_of(
        archives.pax((b"SCHILY.xattr.user.a", b"v" * size + b"\n"))
        + archives.header()
        + archives.header(b"g")
    ).members()
    assert first["xattr_newline"]
    assert not second["xattr_newline"]


def test_records_of_one_member() -> None:
    """No more than Go's archive/tar reads."""
    frame = len(b"1048576 SCHILY.xattr.user.a=\n")
    (member,) = reader_of(
        archives.pax((b"SCHILY.xattr.user.a", b"v" * ((1 << 20) - frame))) + archives.header()
    ).members()
    assert member["xattrs"] is None
    with pytest.raises(ValueError, match="1048577 bytes; at most 1048576"):
        reader_of(
            archives.pax((b"SCHILY.xattr.user.a", b"v" * ((1 << 20) - frame + 1)))
            + archives.header()
        )


def test_small_layers_take_little() -> None:
    """Thousands of layers with next to nothing in them are no 256 KiB each."""
    reader = reader_of(archives.header())
    assert reader.held < LAYER_COST // 2
    assert reader_of(archives.header() * 10).held < LAYER_COST


def test_limit_of_the_table_counts_its_slots() -> None:
    reader = reader_of(archives.pax((b"path", b"n/" * 30000 + b"n")) + archives.header())
    Lower(memory_limit=5 << 20).apply(reader)
    with pytest.raises(ValueError, match="more names than there is memory for"):
        Lower(memory_limit=3_000_000).apply(reader)


@pytest.mark.parametrize(
    ("keys", "at_once", "most"),
    [
        ("", 2, 1),
        ("AAAA", 2, 1),
        ("ABCD", 1, 1),
        ("ABCD", 2, 2),
        ("ABCDABCD", 1, 4),
        ("ABA", 2, 2),
        ("ABBBBC", 2, 2),
        ("A.B.C", 2, 1),
        ("ABCA", 2, 3),
    ],
)
def test_most_in_use(keys: str, at_once: int, most: int) -> None:
    """Images are letters, `.` one without a parent."""
    assert most_in_use([[] if key == "." else [key] for key in keys], at_once) == most


def test_most_in_use_of_stacks() -> None:
    assert most_in_use([["A", "B"], ["B", "C"], ["D"]], 1) == 2
    assert most_in_use([["A", "B"], ["B", "C"], ["D"]], 2) == 3


def test_parents_are_let_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the last image that has it, nothing holds a parent; one that several have is read
    once.
    """
    (tmp_path / "empty").mkdir()
    parents = [
        hand_made(tmp_path / name, archives.header(name.encode()) + archives.END) for name in "abc"
    ]
    made, left = [], []
    plain_read, plain_image = parent_layers.Parents._read, parent_layers.Parents.image

    def read(self: Any, parent: Any, *more: Any) -> Any:
        made.append(Path(parent.image).name)
        return plain_read(self, parent, *more)

    def image(self: Any, *more: Any) -> Any:
        found = plain_image(self, *more)
        left.append(len(self._images))
        return found

    monkeypatch.setattr(parent_layers.Parents, "_read", read)
    monkeypatch.setattr(parent_layers.Parents, "image", image)
    document = [image_of(tmp_path / "empty", parents["abc".index(name)]) for name in "abacc"]
    for entry in document:
        del entry["index-annotations"]
    monkeypatch.setattr("build_oci.pipeline.IMAGES_AT_ONCE", 1)
    built(tmp_path / "layout", *document, epoch=1)
    assert made == ["a", "b", "c"]
    assert left == [1, 1, 0, 1, 0]


def test_an_image_as_a_tree_keeps_large_attributes(tmp_path: Path) -> None:
    """What is written again is never a digest."""
    value = b"v" * 2000
    mode: dict[str, Any] = {"mode": 0o755}
    record = archives.pax((b"SCHILY.xattr.user.a", value))
    tar = (
        record
        + archives.header(b"d", b"5", **mode)
        + record
        + archives.header(b"d/f")
        + archives.END
    )
    source = hand_made(tmp_path / "source", tar)
    image = image_of(None) | {"layer": {"image": os.fspath(source)}}
    (layer,) = clients.layer_tars(built(tmp_path / "layout", image, compression="disabled"))
    with tarfile.open(fileobj=io.BytesIO(layer)) as found:
        kept = {
            member.name: member.pax_headers.get("SCHILY.xattr.user.a")
            for member in found.getmembers()
        }
    assert kept == {".": None, "d": value.decode(), "d/f": value.decode()}


def test_a_directory_of_a_parent_keeps_large_attributes(tmp_path: Path) -> None:
    """A layer that adds to a directory writes it with the metadata that it has."""
    value = b"v" * 2000
    tar = (
        archives.pax((b"SCHILY.xattr.user.a", value))
        + archives.header(b"d", b"5", mode=0o755)
        + archives.END
    )
    (tmp_path / "add" / "d").mkdir(parents=True)
    (tmp_path / "add" / "d" / "f").touch()
    image = image_of(None, hand_made(tmp_path / "parent", tar)) | {
        "layers": [{"add": os.fspath(tmp_path / "add")}]
    }
    with tarfile.open(
        fileobj=io.BytesIO(
            clients.layer_tars(built(tmp_path / "layout", image, compression="disabled"))[-1]
        )
    ) as found:
        kept = {
            member.name: member.pax_headers.get("SCHILY.xattr.user.a")
            for member in found.getmembers()
        }
    assert kept == {".": None, "d": value.decode(), "d/f": None}
