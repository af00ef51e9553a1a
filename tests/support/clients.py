"""The programs that tests run: build-oci itself, and the container tools that must be able to read
what it writes.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import warm

Document = dict[str, Any]


def need(program: str) -> str:
    """The path of PROGRAM; the running test is skipped without it."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


def need_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")


def run(*command: str | Path, env: Mapping[str, str] | None = None, stdin: str = "") -> str:
    """The standard output of COMMAND; the test fails with all it said when it fails."""
    done = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, **(env or {})},
    )
    assert done.returncode == 0, (
        f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
    )
    return done.stdout


# build-oci


@dataclass(frozen=True)
class BuildResult:
    """What a run of the command left behind."""

    output: Path
    returncode: int
    stdout: str
    stderr: str


def run_build(
    config: Document | str,
    output: Path,
    *,
    args: Sequence[str] = (),
    env: Mapping[str, str | None] | None = None,
    cwd: Path,
    check: bool = True,
    python: str | Path = sys.executable,
    umask: int = -1,
) -> BuildResult:
    """Run `build-oci -o OUTPUT ARGS < CONFIG` in CWD by the interpreter PYTHON; in a fork of one
    that is warm where that makes no difference.

    `env` is added to this process' environment, from which SOURCE_DATE_EPOCH is taken out; None
    removes a variable.
    """
    changed: dict[str, str | None] = {**os.environ, "SOURCE_DATE_EPOCH": None, **(env or {})}
    variables = {name: value for name, value in changed.items() if value is not None}
    text = config if isinstance(config, str) else json.dumps(config)
    done = warm.run(
        ["-o", output, *args], input=text, cwd=cwd, env=variables, umask=umask, python=python
    )
    result = BuildResult(output, done.returncode, done.stdout, done.stderr)
    assert not check or done.returncode == 0, (
        f"build-oci: exit status {done.returncode}\n{done.stderr}"
    )
    return result


def layer_config(layer: Path, **settings: object) -> Document:
    """A configuration of one image that packs LAYER; `settings` are top-level keys. Its name in the
    layout is `latest`.
    """
    image = {"os": "linux", "architecture": "amd64", "layer": os.fspath(layer)}
    return {
        **settings,
        "images": [{**image, "index-annotations": {"org.opencontainers.image.ref.name": "latest"}}],
    }


# Layouts, read without the product


def blob(layout: Path, digest: str) -> bytes:
    """The blob DIGEST, verified."""
    data = (layout / "blobs" / digest.replace(":", "/")).read_bytes()
    assert hashlib.sha256(data).hexdigest() == digest.removeprefix("sha256:")
    return data


def index_of(layout: Path) -> Document:
    document: Document = json.loads((layout / "index.json").read_bytes())
    return document


def manifest_of(layout: Path, image: int = 0) -> Document:
    document: Document = json.loads(blob(layout, index_of(layout)["manifests"][image]["digest"]))
    return document


def layer_tars(layout: Path, image: int = 0, *, only: slice = slice(None)) -> list[bytes]:
    """The layers of an image, the lowest first, uncompressed and equal to their diff_id; ONLY takes
    some of them.
    """
    manifest = manifest_of(layout, image)
    diff_ids = json.loads(blob(layout, manifest["config"]["digest"]))["rootfs"]["diff_ids"]
    tars = []
    for descriptor, diff_id in list(zip(manifest["layers"], diff_ids, strict=True))[only]:
        data = blob(layout, descriptor["digest"])
        if descriptor["mediaType"].endswith("+gzip"):
            data = gzip.decompress(data)
        elif descriptor["mediaType"].endswith("+zstd"):
            import zstandard

            data = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read()
        assert "sha256:" + hashlib.sha256(data).hexdigest() == diff_id
        tars.append(data)
    return tars


# Container tools


def skopeo_inspect(layout: Path) -> Document:
    document: Document = json.loads(run(need("skopeo"), "inspect", f"oci:{layout}"))
    return document


def skopeo_copy(layout: Path, target: Path) -> Path:
    """Copy the image to a `dir:` folder, which makes skopeo check every digest."""
    run(
        need("skopeo"),
        "--insecure-policy",
        "copy",
        "--preserve-digests",
        f"oci:{layout}",
        f"dir:{target}",
    )
    return target


def umoci_unpack(layout: Path, bundle: Path) -> Path:
    """The root file system as umoci unpacks it."""
    need_root()
    run(need("umoci"), "unpack", "--image", f"{layout}:latest", bundle)
    return bundle / "rootfs"


def no_overlay(scratch: Path) -> str:
    """Why an overlay of directories in SCRATCH cannot be mounted; nothing where it can."""
    names = ("lower", "upper", "work", "merged")
    folders = [scratch / f"overlay-{name}" for name in names]
    for folder in folders:
        folder.mkdir(parents=True)
    lower, upper, work, merged = folders
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if not done.returncode:
        subprocess.run(["umount", merged], check=True)
    for folder in folders:
        shutil.rmtree(folder)
    return done.stderr.strip() or "mount fails" if done.returncode else ""


def need_overlay(scratch: Path) -> None:
    """Skips where an overlay of directories in SCRATCH cannot be mounted."""
    if reason := no_overlay(scratch):
        pytest.skip(f"no overlay can be mounted here: {reason}")


def buildah(scratch: Path, *, driver: str = "vfs") -> tuple[str, ...]:
    """The command and its options for a storage in SCRATCH alone; the running test is skipped
    without it.
    """
    return (
        need("buildah"),
        "--root",
        str(scratch / "root"),
        "--runroot",
        str(scratch / "run"),
        "--storage-driver",
        driver,  # an option, since --root overrides the variable
    )


@contextlib.contextmanager
def buildah_mount(layout: Path, scratch: Path, *, driver: str = "vfs") -> Iterator[Path]:
    """The root file system of a buildah container made from the image, mounted; its storage is in
    SCRATCH alone. DRIVER: `overlay` shows a root directory of its own and hides character devices
    0:0; it is skipped where SCRATCH cannot hold an overlay.
    """
    need_root()
    if driver == "overlay":
        need_overlay(scratch)
    env = {"BUILDAH_ISOLATION": "chroot", "TMPDIR": str(scratch)}
    program = buildah(scratch, driver=driver)
    container = run(*program, "from", f"oci:{layout}", env=env).strip()
    try:
        yield Path(run(*program, "mount", container, env=env).strip())
    finally:
        if driver != "vfs":  # which mounts nothing
            run(*program, "umount", container, env=env)
