"""The composefs digest of an image is that of the directory that it was built from (contract:
split-layers).

bootc boots such a digest: an image that was sealed by the digest of its directory must have the
same one after it was pulled. `make test-composefs` runs these tests on many more trees:
BUILD_OCI_COMPOSEFS_TREES says on how many.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clients
import pytest
import trees
from layouts import Layout, archive, image
from oracles import SECOND
from parents import COMPRESSIONS, Names, built, change, image_of, names_in, names_of, on_disk
from test_image_tree import of_image, squashed_by_root_and_nobody

from build_oci.config.load import load_config
from build_oci.pipeline import build

pytestmark = [pytest.mark.composefs, pytest.mark.clients, pytest.mark.once]

EPOCH = 1_700_000_000
TREES = int(os.environ.get("BUILD_OCI_COMPOSEFS_TREES", "3"))

Command = Callable[..., str]


@pytest.fixture(scope="module")
def cfsctl(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """cfsctl(ARGUMENT…): its standard output, with a repository that lasts as long as this module's
    tests.
    """
    own = Path.home() / ".cache" / "build-oci-tests" / "cargo" / "bin" / "cfsctl"
    program = os.fspath(own) if own.exists() else clients.need("cfsctl")
    # --insecure: few file systems of build machines have fs-verity; the digests are the same
    # without
    start = [
        program,
        "--insecure",
        "--repo",
        os.fspath(tmp_path_factory.mktemp("composefs") / "repository"),
    ]

    def run(*arguments: str | Path) -> str:
        return clients.run(*start, *arguments).strip()

    run("init", "--insecure")
    return run


def fit(names: Names) -> Names:
    """NAMES without what composefs refuses (times before 1970) and what no layer can hold
    (sockets).
    """
    for item in names.values():
        item.mtime = abs(item.mtime)
    kept = {path: item for path, item in names.items() if item.type != stat.S_IFSOCK}
    # cfsctl takes the root's owner, mode and time from /usr, as bootc does
    kept[b"usr"] = kept.get(b"usr") or trees.Item(b"usr", stat.S_IFDIR, 0o755, mtime=5 * SECOND)
    return kept


def with_epoch(root: Path, epoch: int) -> Path:
    """ROOT with the time EPOCH everywhere, which is what the layer has."""
    for directory, folders, files in os.walk(os.fsencode(root), topdown=False):
        for name in [*folders, *files, b"."]:
            os.utime(os.path.join(directory, name), (epoch, epoch), follow_symlinks=False)
    return root


def assert_digests_equal(cfsctl: Command, layout: Path, tree: Path) -> None:
    cfsctl("oci", "pull", f"oci:{layout}", layout.name)
    if (found := cfsctl("oci", "compute-id", layout.name)) != cfsctl("compute-id", tree):
        ours, theirs = (
            cfsctl("oci", "dump", layout.name).splitlines(),
            cfsctl("create-dumpfile", tree).splitlines(),
        )
        pytest.fail(
            f"{found}: the image has {sorted(set(ours) - set(theirs))[:5]}, the directory"
            f" {sorted(set(theirs) - set(ours))[:5]}"
        )


@pytest.mark.parametrize("seed", range(TREES))
def test_one_layer(cfsctl: Command, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    tree = on_disk(fit(names_of(trees.random_tree(rng, 60, large=1))), tmp_path / "tree")
    epoch = rng.choice([None, EPOCH])
    settings: dict[str, Any] = {
        "compression": COMPRESSIONS[seed % 3],
        "trust_checksum_xattrs": False,
    }
    layout = built(tmp_path / f"one-{seed}", image_of(tree), epoch=epoch, **settings)
    assert_digests_equal(cfsctl, layout, with_epoch(tree, epoch) if epoch else tree)


@pytest.mark.parametrize("seed", range(TREES))
def test_upon_a_parent(cfsctl: Command, tmp_path: Path, seed: int) -> None:
    """Whiteouts, entries that are left out as unchanged, and layers of one image in several
    codecs.
    """
    rng = random.Random(seed)
    names = names_of(trees.random_tree(rng, 60))
    former = None
    for number in range(3):
        if number:
            change(rng, names, 15)
        tree = on_disk(fit(names), tmp_path / f"tree-{number}")
        settings: dict[str, Any] = {
            "compression": rng.choice(COMPRESSIONS),
            "trust_checksum_xattrs": False,
        }
        upon: dict[str, Any] = {"parent": former, "recompress": bool(seed % 2)} if former else {}
        former = built(tmp_path / f"parent-{seed}-{number}", image_of(tree, **upon), **settings)
    assert former
    assert_digests_equal(cfsctl, former, tree)


def split_image(tree: Path, ways: int, rng: random.Random) -> dict[str, Any]:
    """An image whose files are dealt out to so many components, whatever directory they are in."""
    owned: dict[str, list[str]] = {f"component-{number}": [] for number in range(ways)}
    map_file = tree.with_suffix(".map")
    lines = []
    for directory, _, files in os.walk(os.fsencode(tree)):
        for name in files:
            path = os.path.relpath(os.path.join(directory, name), os.fsencode(tree))
            if not set(b"\n\t") & set(path) and not path.startswith(b"#"):
                lines.append(path + b"\t" + rng.choice(sorted(owned)).encode())
    map_file.write_bytes(b"\n".join([*lines, b"usr/no-such-file\tnobody", b""]))
    return {
        **image_of(tree),
        "split": {
            "components": [{"file": os.fspath(map_file)}],
            "unclaimed": "ignore",
            "max-layers": ways,
        },
    }


@pytest.mark.parametrize("seed", range(TREES))
def test_split(cfsctl: Command, tmp_path: Path, seed: int) -> None:
    """contract: split-layers. The digest of an image of many layers is that of the directory,
    too.
    """
    rng = random.Random(seed)
    tree = on_disk(fit(names_of(trees.random_tree(rng, 80))), tmp_path / "tree")
    epoch = rng.choice([None, EPOCH])
    document = {
        "compression": COMPRESSIONS[seed % 3],
        "trust-checksum-xattrs": False,
        "images": [split_image(tree, 6, rng)],
    }
    layout = tmp_path / f"split-{seed}"
    build(load_config(json.dumps(document)), output=layout, workers=2, epoch=epoch)
    assert len(clients.layer_tars(layout)) > 1
    assert_digests_equal(cfsctl, layout, with_epoch(tree, epoch) if epoch else tree)


@pytest.mark.parametrize("seed", range(TREES))
def test_squashed(cfsctl: Command, tmp_path: Path, seed: int) -> None:
    """contract: late-image-tree. An image of many layers, upon a parent that had more, squashed to
    one, and divided anew.
    """
    rng = random.Random(seed)
    names = names_of(trees.random_tree(rng, 80))
    parent = on_disk(fit(names), tmp_path / "parent")
    below = built(tmp_path / f"below-{seed}", image_of(parent), trust_checksum_xattrs=False)
    change(rng, names, 10)
    tree = on_disk(fit(names), tmp_path / "tree")
    epoch = rng.choice([None, EPOCH])
    settings: dict[str, Any] = {
        "compression": COMPRESSIONS[seed % 3],
        "trust_checksum_xattrs": False,
    }
    upon = {**split_image(tree, 5, rng), "parent": {"image": os.fspath(below)}}
    many = built(tmp_path / f"many-{seed}", upon, **settings)
    split = split_image(tree, 3, rng)["split"]
    for name, more in (("squashed", {}), ("anew", {"split": split})):
        layout = tmp_path / f"{name}-{seed}"
        built(layout, of_image(many) | more, epoch=epoch, **settings)
        assert (len(clients.layer_tars(layout)) == 1) is (not more)
        same = with_epoch(tree, epoch) if epoch else tree
        assert_digests_equal(cfsctl, layout, same)


def test_squashed_by_an_ordinary_user(cfsctl: Command, tmp_path: Path) -> None:
    """Owners, devices and capabilities come out of the archives, whoever runs the build."""
    clients.need_root()
    tree = on_disk(fit(names_of(trees.random_tree(random.Random(11), 150))), tmp_path / "tree")
    image = split_image(tree, 4, random.Random(11))
    layout = built(tmp_path / "mine", image, trust_checksum_xattrs=False)
    by_root, by_nobody = squashed_by_root_and_nobody(layout, tmp_path)
    with_epoch(tree, EPOCH)
    assert_digests_equal(cfsctl, by_root, tree)
    assert_digests_equal(cfsctl, by_nobody, tree)


def test_sealed(cfsctl: Command, tmp_path: Path) -> None:
    """The order of docs/bootc.md: the digest that a UKI holds outlives the layer that brings the
    UKI into /boot.
    """
    tree = tmp_path / "tree"
    for name in ("usr/lib/modules/6.1", "boot", "sysroot", "etc"):
        (tree / name).mkdir(parents=True)
    (tree / "usr" / "lib" / "modules" / "6.1" / "vmlinuz").write_bytes(b"kernel")
    unsealed = built(tmp_path / "unsealed", image_of(tree), epoch=EPOCH)
    cfsctl("oci", "pull", f"oci:{unsealed}", "unsealed")
    digest = cfsctl("oci", "compute-id", "--bootable", "unsealed")
    assert digest == cfsctl("compute-id", "--bootable", with_epoch(tree, EPOCH))
    (tree / "boot" / "EFI" / "Linux").mkdir(parents=True)
    (tree / "boot" / "EFI" / "Linux" / "a.efi").write_bytes(b"UKI with " + digest.encode())
    sealed = built(tmp_path / "sealed", image_of(tree, unsealed), epoch=EPOCH)
    assert names_in(clients.layer_tars(sealed)[-1]) == [
        ".",
        "boot",
        "boot/EFI",
        "boot/EFI/Linux",
        "boot/EFI/Linux/a.efi",
    ]
    cfsctl("oci", "pull", f"oci:{sealed}", "sealed")
    assert cfsctl("oci", "compute-id", "--bootable", "sealed") == digest


def test_time_before_1970_is_refused(cfsctl: Command, tmp_path: Path) -> None:
    """If this fails, composefs has learned them, and `verify --bootc` has a finding too many."""
    tree = tmp_path / "tree"
    (tree / "usr").mkdir(parents=True)
    os.utime(tree / "usr", (-5, -5))
    layout = built(tmp_path / "early", image_of(tree))
    with pytest.raises(AssertionError, match="invalid PAX mtime"):
        cfsctl("oci", "pull", f"oci:{layout}", "early")


@pytest.mark.parametrize("tars", [
    [archive(("usr", None), ("opt/f", b"x"))],
    [archive(("usr", None), ("opt", None)), archive((".wh.opt", b""), ("opt/f", b"x"))],
    [archive(("etc", None))],
])  # fmt: skip
def test_what_verify_says_is_refused(cfsctl: Command, tmp_path: Path, tars: list[bytes]) -> None:
    """An entry without the directory that it is in, and an image without /usr."""
    layout = Layout(tmp_path / "refused")
    layout.index(image(layout, tars))
    name = f"refused-{hashlib.sha256(b''.join(tars)).hexdigest()}"
    with pytest.raises(AssertionError, match="does not exist"):  # noqa: PT012
        cfsctl("oci", "pull", f"oci:{layout.path}", name)
        cfsctl("oci", "compute-id", name)


@pytest.mark.skipif(
    "BUILD_OCI_COMPOSEFS_TREES" not in os.environ, reason="make test-composefs runs it"
)
def test_debian(cfsctl: Command, debian_tree: Path, tmp_path: Path) -> None:
    """A real system, and what an upgrade may do to it."""
    tree = tmp_path / "tree"
    subprocess.run(["cp", "--archive", "--reflink=auto", debian_tree, tree], check=True)
    first = built(tmp_path / "debian", image_of(tree))
    assert_digests_equal(cfsctl, first, tree)
    (tree / "etc" / "os-release").unlink()
    (tree / "usr" / "bin" / "new").write_bytes(b"#!/bin/sh\n")
    shutil.rmtree(tree / "usr" / "share" / "doc")
    assert_digests_equal(cfsctl, built(tmp_path / "upgraded", image_of(tree, first)), tree)
