"""Bad input leaves the disk as it was (contract: config-nothing-written)."""

from __future__ import annotations

from pathlib import Path

import faults
import pytest

from build_oci.cli.command import main

IMAGE = "architecture: amd64, os: linux"

BAD = [
    "",
    "images: [",
    "images: {}",
    "imags: []",
    f"images: [{{{IMAGE}, layer: absent}}]",
    f"images: [{{{IMAGE}, layer: file}}]",
    f"images: [{{{IMAGE}, layer: tree, config: {{Cmd: 1}}}}]",
    f"images: [{{{IMAGE}, layer: tree, parent: {{image: absent}}}}]",
    f"images: [{{{IMAGE}, layer: tree, parent: {{image: tree}}}}]",
    f"images: [{{{IMAGE}, layer: tree, parent: {{image: former, index: 9}}}}]",
    f"images: [{{{IMAGE}, layer: tree, split: {{max-layers: 0}}}}]",
    f"images: [{{{IMAGE}, layer: tree, split: {{components: [{{file: absent}}]}}}}]",
    f"images: [{{{IMAGE}, layer: tree, split: {{components: [{{file: file}}]}}}}]",
    f"images: [{{{IMAGE}, layer: tree, previous: {{image: absent}}}}]",
    f"images: [{{{IMAGE}, layers: [{{add: tree, remove: [absent]}}], parent: {{image: former}}}}]",
    f"images: [{{{IMAGE}, layers: [{{image: absent}}]}}]",
    f"images: [{{{IMAGE}, layer: tree}}]\ncompression: lzma",
]


@pytest.mark.parametrize("document", BAD)
@pytest.mark.parametrize("target", ["new", "output", "oci-archive:new.tar"])
def test_bad_input(
    document: str, target: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new output is not made, and one that holds an image keeps it, with nothing beside it."""
    (place / "config.yaml").write_text(document)
    before = faults.snapshot(place)
    assert main(["-f", "config.yaml", "-o", target, "--strict", "-q"]) in (1, 2)
    assert faults.snapshot(place) == before
    assert "build-oci: error: " in capsys.readouterr().err


@pytest.fixture
def place(former: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a tree, a layout `former` and a layout `output`."""
    assert output.parent == tmp_path
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tree").mkdir()
    (tmp_path / "file").write_bytes(b"no map")
    (tmp_path / "former").symlink_to(former)
    return tmp_path
