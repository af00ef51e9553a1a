"""contract: compare-reports. Images of five builders, in any pairing: what the trees differ in is
named, and nothing else.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import clients
import pytest
from conftest import Build
from stacks import told

from build_oci.compare.document import report_document
from build_oci.compare.report import compare_layouts

EPOCH = 1_700_000_000
CHANGES = {
    "etc/changed": ["changed", "content"],
    "etc/mode": ["changed", "mode"],
    "etc/new": ["added"],
    "etc/gone": ["removed"],
    "usr/link": ["changed", "link target"],
}

Maker = Callable[[Path, Path], str]


def tree(root: Path, *, updated: bool) -> Path:
    """A small root, before or after an update."""
    (root / "etc").mkdir(parents=True)
    (root / "usr").mkdir()
    contents = {"etc/same": "same", "etc/changed": "new" if updated else "old", "etc/mode": "mode"}
    contents["etc/new" if updated else "etc/gone"] = "x"
    for name, content in contents.items():
        (root / name).write_text(content * 1000)
        (root / name).chmod(0o644)
    (root / "etc/mode").chmod(0o755 if updated else 0o644)
    os.setxattr(root / "etc/same", "user.component", b"same")  # without any, chunkah builds nothing
    os.link(root / "etc/same", root / "usr/hard")
    (root / "usr/link").symlink_to("hard" if updated else "../etc/same")
    for path in [*root.rglob("*"), root]:
        os.utime(path, (EPOCH - 1000, EPOCH - 1000), follow_symlinks=False)
    return root


def buildah(root: Path, output: Path) -> str:
    program = (
        clients.need("buildah"),
        f"--root={output}-storage",
        f"--runroot={output}-run",
        "--storage-driver=vfs",
    )
    env = {"BUILDAH_ISOLATION": "chroot"}
    container = clients.run(*program, "from", "scratch", env=env).strip()
    try:
        clients.run(*program, "copy", container, f"{root}/.", "/", env=env)
        clients.run(*program, "commit", container, f"oci:{output}:latest", env=env)
    finally:
        clients.run(*program, "rm", container, env=env)
    return str(output)


def umoci(root: Path, output: Path) -> str:
    program, bundle = clients.need("umoci"), Path(f"{output}-bundle")
    clients.run(program, "init", "--layout", output)
    clients.run(program, "new", "--image", f"{output}:latest")
    clients.run(program, "unpack", "--image", f"{output}:latest", bundle)
    clients.run("cp", "-a", f"{root}/.", bundle / "rootfs")
    clients.run(program, "repack", "--image", f"{output}:latest", bundle)
    return f"{output}:latest"


def chunkah(root: Path, output: Path) -> str:
    clients.run(
        clients.need("chunkah"),
        "build",
        f"--rootfs={root}",
        "--config-str={}",
        f"--output=oci:{output}",
        env={"SOURCE_DATE_EPOCH": str(EPOCH)},
    )
    return str(output)


@pytest.fixture
def makers(build: Build) -> dict[str, Maker]:
    def ours(root: Path, output: Path) -> str:
        return str(build(clients.layer_config(root, compression="zstd")).output)

    def ours_split(root: Path, output: Path) -> str:
        split = {
            "max-layers": 3,
            "components": [{"paths": {"usr": ["usr"]}}],
            "unclaimed": "ignore",
        }
        config = clients.layer_config(root, compression="gzip")
        config["images"][0]["split"] = split
        return str(build(config).output)

    def skopeo(root: Path, output: Path) -> str:
        plain = ours(root, output)
        clients.run(
            clients.need("skopeo"),
            "--insecure-policy",
            "copy",
            "--dest-compress-format=gzip",
            "--dest-compress",
            f"oci:{plain}:latest",
            f"oci-archive:{output}:latest",
        )
        return str(output)

    return {
        "ours": ours,
        "ours, split": ours_split,
        "skopeo": skopeo,
        "buildah": buildah,
        "umoci": umoci,
        "chunkah": chunkah,
    }


@pytest.mark.clients
def test_any_pairing(makers: dict[str, Maker], tmp_path: Path) -> None:
    clients.need_root()
    before, after = (
        tree(tmp_path / "before", updated=False),
        tree(tmp_path / "after", updated=True),
    )
    made = {}
    for name, make in makers.items():
        program = name.partition(",")[0]
        if program == "ours" or shutil.which(program):
            made[name] = (
                make(before, tmp_path / f"{program}-1"),
                make(after, tmp_path / f"{program}-2"),
            )
    for (first, (old, _)), (second, (again, new)) in product(made.items(), repeat=2):
        assert told_of(old, again) == {}, (first, second)
        assert told_of(old, new) == CHANGES, (first, second)
    if left := sorted(makers.keys() - made.keys()):
        pytest.skip(f"not installed: {', '.join(left)}; the others passed")


def told_of(old: str, new: str) -> dict[str, list[str]]:
    (found,) = report_document(compare_layouts(old, new, workers=2, deep=True))["images"]
    return told(found)
