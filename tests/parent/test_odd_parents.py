"""Parents that are not what they say, in ways that clients bear with."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import layouts
import pytest

from build_oci.check import check_parent
from build_oci.config.load import load_config
from build_oci.errors import ParentError
from build_oci.pipeline import build


def warnings_of(layout: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "tree").mkdir(exist_ok=True)
    image = (
        f"{{architecture: amd64, os: linux, layer: {tmp_path}/tree, parent: {{image: {layout}}}}}"
    )
    found: list[str] = []
    build(load_config(f"images: [{image}]"), output=tmp_path / "out", warn=found.append, epoch=0)
    return [line for line in found if "belongs to" not in line]


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (layouts.FIRST, layouts.LAYER + "+gzip"),
        (gzip.compress(layouts.FIRST, mtime=0), layouts.LAYER),
        (gzip.compress(layouts.FIRST, mtime=0), layouts.LAYER + "+zstd"),
    ],
)
def test_media_type_that_lies(content: bytes, media_type: str, tmp_path: Path) -> None:
    """Clients go by the bytes, so do we; the warning names the blob."""
    layout = layouts.Layout(tmp_path / "layout")
    descriptor = layout.blob(content, media_type)
    layout.index(
        layouts.image(layout, [layouts.FIRST], manifest=layouts.set_to("layers.0", descriptor))
    )
    (warning,) = warnings_of(layout.path, tmp_path)
    assert f"its media type is {media_type}, but it is" in warning
    assert descriptor["digest"][7:] in warning


def test_parent_of_another_platform(tmp_path: Path) -> None:
    layout = layouts.Layout(tmp_path / "layout")
    layout.index(
        layouts.image(layout, [layouts.FIRST], config=layouts.set_to("architecture", "arm64"))
    )
    (warning,) = warnings_of(layout.path, tmp_path)
    assert "has the architecture “arm64”, and the image “amd64”" in warning


def test_check_looks_at_parents(tmp_path: Path) -> None:
    """--check finds an index number that is not there, and a blob that is missing."""
    layout = layouts.Layout(tmp_path / "layout")
    image: dict[str, Any] = layouts.image(layout, [layouts.FIRST])
    layout.index(image)
    platform = load_config("images: [{architecture: amd64, os: linux}]").images[0].platform
    check_parent(str(layout.path), 0, platform)
    with pytest.raises(ParentError, match="has no manifest number 3"):
        check_parent(str(layout.path), 3, platform)
    (layout.path / "blobs" / "sha256" / layouts.FIRST_DIGEST).unlink()
    with pytest.raises(ParentError, match="is missing"):
        check_parent(str(layout.path), 0, platform)
