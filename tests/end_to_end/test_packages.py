"""The package as a whole: what the wheel holds, and which part may import which."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import REPOSITORY

from build_oci._native import sha256

PACKAGE = REPOSITORY / "build_oci"
sources = pytest.mark.skipif(not PACKAGE.is_dir(), reason="the sources are not here")


@sources
def test_every_package_is_in_the_wheel() -> None:
    """A folder that the list of packages lacks is missing from the wheel, though an import from the
    checkout finds it.
    """
    found = sorted(
        ".".join(path.parent.relative_to(REPOSITORY).parts) for path in PACKAGE.rglob("__init__.py")
    )
    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "setuptools"
    ]["packages"]
    assert sorted(listed) == found


# Each line may import from the lines above it.
ROOMS = (
    "records",
    "_native errors progress version",
    "work",
    "codec oci",
    "config",
    "layer parent",
    "split",
    "previous",
    "image check",
    "pipeline merge verify compare",
    "cli",
    "__init__ __main__",
)


def imports(path: Path) -> Iterator[str]:
    """The modules of the package that PATH imports at any time, for types too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "build_oci":
            assert node.module
            for name in node.names:
                inner = PACKAGE.parent.joinpath(*node.module.split("."), name.name)
                is_module = inner.with_suffix(".py").exists() or inner.with_suffix(".pyx").exists()
                yield f"{node.module}.{name.name}" if is_module or inner.is_dir() else node.module


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(
            ".__init__"
        ): path
        for path in PACKAGE.rglob("*.py")
    }


def room(module: str) -> str:
    return (module.split(".")[1:] or ["__init__"])[0]


@pytest.mark.once
@sources
def test_no_import_runs_upward() -> None:
    floors = {name: floor for floor, names in enumerate(ROOMS) for name in names.split()}
    found = modules()
    assert {room(module) for module in found} == floors.keys()
    assert [
        f"{module} imports {other}"
        for module, path in found.items()
        for other in imports(path)
        if room(module) != room(other) and floors[room(other)] >= floors[room(module)]
    ] == []


@pytest.mark.once
@sources
def test_looking_at_an_image_needs_no_parent() -> None:
    """What reads images that others built, and what builds upon one, share what stands in `oci`."""
    assert [
        f"{module} imports {other}"
        for module, path in modules().items()
        for other in imports(path)
        if room(module) in ("verify", "compare", "merge") and room(other) == "parent"
    ] == []


@pytest.mark.once
@sources
def test_every_named_tuple_is_made_at_little_cost() -> None:
    """The first NamedTuple of `typing` takes longer than all of those in records.py."""
    assert [
        str(path)
        for path in [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyx")]
        if path.name != "records.py"
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("from typing import") and "NamedTuple" in line
    ] == []


@pytest.mark.once
@sources
def test_no_import_goes_in_a_circle() -> None:
    found = modules()
    left = {module: {*imports(path)} & found.keys() - {module} for module, path in found.items()}
    while free := [module for module, others in left.items() if not others & left.keys()]:
        for module in free:
            del left[module]
    assert left == {}


# What a build of one directory with the default settings can do without.
NOT_NEEDED = (
    "build_oci.cli.bars",
    "build_oci.cli.compare",
    "build_oci.codec.chunked",
    "build_oci.compare",
    "build_oci.image.stack",
    "build_oci.merge",
    "build_oci.oci.fields",
    "build_oci.oci.prune",
    "build_oci.parent",
    "build_oci.previous",
    "build_oci.split",
    "build_oci.verify",
    "deflate",
    "isal",
    "select",
    "tqdm",
)


def loaded_by(config: object, output: Path) -> list[str]:
    """The modules that a build of CONFIG imports."""
    program = (
        "import sys; from build_oci.cli.command import main; status = main(sys.argv[1:]);"
        " print(*sys.modules); sys.exit(status)"
    )
    command = [sys.executable, "-P", "-c", program, "-o", str(output)]
    return subprocess.run(
        command, input=json.dumps(config), capture_output=True, text=True, check=True
    ).stdout.split()


def test_a_plain_build_imports_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "file").write_text("content")
    image = {"architecture": "amd64", "os": "linux", "layer": str(tmp_path / "root")}
    loaded = loaded_by({"images": [image]}, tmp_path / "out")
    assert "build_oci.image.build" in loaded
    assert [
        name
        for name in loaded
        for other in NOT_NEEDED
        if name == other or name.startswith(f"{other}.")
    ] == []


@pytest.mark.skipif(not sha256.in_pairs(), reason="OpenSSL is quicker on this CPU")
def test_building_again_loads_no_other_sha256(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "file").write_text("content")
    image: dict[str, object] = {
        "architecture": "amd64",
        "os": "linux",
        "layer": str(tmp_path / "root"),
    }
    for previous in ({"optional": True}, {"trust": True}):
        image["previous"] = {"image": str(tmp_path / "last"), **previous}
        loaded = loaded_by({"images": [image]}, tmp_path / "last")
    assert "build_oci.previous.image" in loaded
    assert not {"hashlib", "_hashlib"} & set(loaded)
