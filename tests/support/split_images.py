"""Images of many layers, built by the command from small roots."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import clients
import oracles
import pytest

from build_oci.config.load import load_config
from build_oci.pipeline import BuildResult, build

EPOCH = 1_700_000_000


def written_map(path: Path, owners: dict[bytes, str]) -> Path:
    """A map of components, without the paths that its lines cannot hold, and with one that the tree
    lacks: it may not be empty.
    """
    lines = [
        file + b"\t" + name.encode()
        for file, name in owners.items()
        if not set(b"\n\t") & set(file) and not file.startswith(b"#")
    ]
    path.write_bytes(b"\n".join([*lines, b"no/such/file\tnobody", b""]))
    return path


def split_config(
    layer: str | Path,
    source: Any,
    *,
    most: int = 64,
    plan: str | None = None,
    parent: Path | None = None,
    compression: str = "disabled",
) -> str:
    image: dict[str, Any] = {
        "os": "linux",
        "architecture": "amd64",
        "layer": os.fspath(layer),
        "split": {
            "components": source,
            "unclaimed": "ignore",
            "max-layers": most,
            **({"plan": plan} if plan else {}),
        },
        "index-annotations": {"org.opencontainers.image.ref.name": "latest"},
    }
    if parent:
        image["parent"] = {"image": os.fspath(parent)}
    return json.dumps({"compression": compression, "images": [image]})


def built(
    config: str,
    output: Path,
    *,
    epoch: int | None,
    workers: int = 2,
    warnings: list[str] | None = None,
) -> BuildResult:
    heard: list[str] = [] if warnings is None else warnings
    return build(
        load_config(config),
        output=output,
        workers=workers,
        epoch=epoch,
        warn=heard.append,
        sync=False,
    )


def merged(layout: Path) -> oracles.Model:
    model: oracles.Model = {}
    for tar in clients.layer_tars(layout):
        oracles.apply_layer(io.BytesIO(tar), model)
    return model


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three components of some files in shared directories, a hard link across two of them, an
    empty directory, a file of nobody.
    """
    root = tmp_path / "tree"
    for component in "abc":
        for folder in ("usr/bin", "usr/share/doc", f"usr/lib/{component}"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / folder / f"file-{component}").write_text(f"{folder} {component}" * 50)
    os.link(root / "usr/lib/a/file-a", root / "usr/lib/b/linked")
    (root / "var/empty").mkdir(parents=True)
    (root / "var/nobody").write_text("nobody")
    return root


def letters(letters: str = "abc") -> list[Any]:
    return [
        {"paths": {letter: [f"usr/**/file-{letter}", f"usr/lib/{letter}/**"] for letter in letters}}
    ]


def layer_digests(layout: Path) -> list[str]:
    return [layer["digest"] for layer in clients.manifest_of(layout)["layers"]]
