"""The same input gives the same bytes, whatever is around it (contract: promise-reproducible)."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clients
import pytest
import trees
from conftest import Build

from build_oci._native.sha256 import kernels

EPOCH = "1700000000"
# BUILD_OCI_PYTHONS: interpreters, colon separated, that have the package installed
PYTHONS = [python for python in os.environ.get("BUILD_OCI_PYTHONS", "").split(":") if python]


def digests(layout: Path) -> dict[str, str]:
    """Every file of the layout with its SHA-256."""
    return {
        str(path.relative_to(layout)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(layout.rglob("*"))
        if path.is_file()
    }


def config_of(tree: Path, compression: str) -> clients.Document:
    """Two images of the same tree, so that what is shared between images takes part."""
    config = clients.layer_config(tree, compression=compression)
    return {
        **config,
        "images": [*config["images"], {"os": "linux", "architecture": "arm64", "layer": str(tree)}],
    }


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Odd names, and more data than one compressed block or segment holds."""
    root = tmp_path_factory.mktemp("tree")
    trees.materialise(trees.random_tree(random.Random(6), 400, large=6), root)
    return root


@pytest.fixture(scope="module", params=["zstd", "gzip", "disabled"])
def compression(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def reference(
    tree: Path, compression: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The digests of a build in these surroundings."""
    scratch = tmp_path_factory.mktemp("reference")
    config = config_of(tree, compression)
    return digests(
        clients.run_build(
            config, scratch / "layout", env={"SOURCE_DATE_EPOCH": EPOCH}, cwd=scratch
        ).output
    )


@pytest.mark.platform
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"args": ["-j1"]}, id="-j1"),
        pytest.param({"args": ["-j2"]}, id="-j2"),
        pytest.param({"args": ["-j7"]}, id="-j7"),
        pytest.param({"umask": 0o077}, id="umask"),
        pytest.param(
            {"env": {"TZ": "Pacific/Kiritimati", "LC_ALL": None, "LANG": "C"}}, id="LANG=C"
        ),
        pytest.param({"env": {"LC_ALL": "C.UTF-8"}}, id="LC_ALL=C.UTF-8"),
        # without the UTF-8 mode that Python otherwise falls into: ASCII decides how names are
        # decoded
        pytest.param(
            {"env": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}}, id="ASCII"
        ),
        pytest.param({"env": {"PYTHONHASHSEED": "1", "HOME": "/", "USER": "somebody"}}, id="user"),
        pytest.param({"cwd": Path("/")}, id="cwd"),
        *[pytest.param({"env": {"BUILD_OCI_SHA256": kernel}}, id=kernel) for kernel in kernels()],
    ],
)
def test_surroundings(
    build: Build, tree: Path, compression: str, reference: dict[str, str], change: dict[str, Any]
) -> None:
    """contract: promise-reproducible.
    "the same bytes, whatever the `-j`, CPU count, ..., locale, time zone, umask, user, working
    directory"; or the CPU."""
    again = build(
        config_of(tree, compression),
        **{**change, "env": {"SOURCE_DATE_EPOCH": EPOCH, **change.get("env", {})}},
    )
    assert digests(again.output) == reference


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The same tree twice, made in another order; the second where a directory is listed in that
    order, if this may be mounted: ext4 lists both by the hashes of the names.
    """
    scratch = tmp_path_factory.mktemp("copies")
    flat, other = scratch / "flat", scratch / "another-name"
    other.mkdir()
    command = ["mount", "-t", "tmpfs", "tmpfs", str(other)]
    mounted = not subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode
    try:
        for root, order in ((flat, 1), (other, -1)):
            root.mkdir(exist_ok=True)
            root.chmod(0o755)
            for number in range(1000)[::order]:
                (root / str(number)).write_bytes(b"%d" % number)
            os.link(root / "77", root / "hard-link")
        assert not mounted or os.listdir(flat) != os.listdir(other)
        yield flat, other
    finally:
        if mounted:
            subprocess.run(["umount", "-l", other], check=True)


@pytest.mark.once
def test_another_copy_of_the_tree(
    build: Build, copies: tuple[Path, Path], compression: str
) -> None:
    """contract: promise-reproducible. "whatever the ... readdir order, inode numbers": made
    backwards, and elsewhere.
    """
    layouts = [
        build(
            clients.layer_config(root, compression=compression),
            env={"SOURCE_DATE_EPOCH": EPOCH},
            args=args,
        ).output
        for root, args in zip(copies, (["-j3"], ["-j1"]), strict=True)
    ]
    assert digests(layouts[0]) == digests(layouts[1])


@pytest.mark.platform
def test_twice_into_the_same_layout(
    build: Build, tree: Path, compression: str, reference: dict[str, str]
) -> None:
    """contract: layout-json. "Two runs write the same bytes", also over what the first one left."""
    config = config_of(tree, compression)
    output = build(config, env={"SOURCE_DATE_EPOCH": EPOCH}).output
    clients.run_build(config, output, env={"SOURCE_DATE_EPOCH": EPOCH}, cwd=tree)
    assert digests(output) == reference


@pytest.mark.skipif(not PYTHONS, reason="BUILD_OCI_PYTHONS names no other interpreter")
@pytest.mark.parametrize("python", PYTHONS)
def test_python_versions(
    build: Build, tree: Path, compression: str, reference: dict[str, str], python: str
) -> None:
    """contract: promise-reproducible. "whatever the ... Python version"."""
    assert (
        digests(
            build(
                config_of(tree, compression), env={"SOURCE_DATE_EPOCH": EPOCH}, python=python
            ).output
        )
        == reference
    )
