"""What LD_PRELOAD shims say of a file is what its layer holds (contract: xattr-shims): fakeroot,
and one that fakes attributes by device and inode."""

from __future__ import annotations

import io
import json
import os
import shlex
import stat
import sys
import tarfile
from pathlib import Path

import clients
import oracles
import pytest
import trees
from conftest import Build
from places import C_SOURCES, SUPPORT
from preload import preload
from test_layer_tar import assert_same_tar

import build_oci

pytestmark = pytest.mark.once

SOURCE = C_SOURCES / "fakecap.c"
# CAP_SETUID, CAP_NET_RAW and CAP_SYS_ADMIN by itself: 0x80, 0x2000 and 0x200000
CAPABILITY = trees.capability(0x80 | 0x2000 | 0x200000)
Fake = dict[Path, dict[str, bytes]]


def faked(attributes: Fake) -> dict[str, str]:
    """The environment in which the files have these attributes too. A value of one byte many times
    is told in short: the environment is.
    """
    table = []
    for path, values in attributes.items():
        status = path.lstat()
        for name, value in values.items():
            times = len(value) if len(set(value)) == 1 else 1
            unit = value[: len(value) // times].hex()
            table.append(f"{status.st_dev}:{status.st_ino}:{name}={unit}*{times}")
    return {**preload(SOURCE), "FAKECAP": ";".join(table)}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """One entry of each type that needs no privilege."""
    root = tmp_path / "tree"
    (root / "folder").mkdir(parents=True)
    for name in ("file", "folder/below", "folder/plain"):
        (root / name).write_text(name)
    os.link(root / "file", root / "folder" / "link")
    (root / "symlink").symlink_to("file")
    (root / "dangling").symlink_to("nowhere")
    os.mkfifo(root / "fifo")
    return root


def attributes(tree: Path) -> Fake:
    """Attributes of every kind, on entries of every type."""
    return {
        tree: {"user.root": b"of the root itself"},
        tree / "file": {
            "security.capability": CAPABILITY,
            "user.empty": b"",
            "user.bytes": bytes(range(256)),
        },
        tree / "folder": {"system.posix_acl_default": trees.acl(7), "trusted.t": b"\xff"},
        tree / "folder/below": {
            "security.capability": CAPABILITY,
            "user.largest": b"\x80" * 65536,
            "user.largest-too": b"x" * 65536,
        },
        tree / "symlink": {"security.ima": b"\x03\x02\x04"},
        tree / "dangling": {"trusted.dangling": b"\x00"},
        tree / "fifo": {"security.capability": b"\xfe" * 24},
    }


def layer_of(layout: Path) -> oracles.Model:
    return oracles.apply_layer(io.BytesIO(clients.layer_tars(layout)[-1]), {})


def test_shim_gives_attributes(build: Build, tree: Path) -> None:
    """Byte for byte, on every type of entry, beside those that the disk holds; what tells of the
    build host is left out as ever.
    """
    given = attributes(tree)
    expected = oracles.tree_model(tree)
    for path, values in given.items():
        expected[os.fsencode(path.relative_to(tree))].xattrs |= values
    given[tree / "folder/plain"] = {"security.selinux": b"label\0", "user.overlay.opaque": b"y"}
    if "user" in trees.abilities().xattrs:
        os.setxattr(tree / "file", "user.real", b"\xe9")
        expected[b"file"].xattrs["user.real"] = b"\xe9"
    layout = build(clients.layer_config(tree), env=faked(given)).output
    assert oracles.compare(layer_of(layout), expected) == []
    # the disk itself says nothing of this
    assert layer_of(build(clients.layer_config(tree)).output)[b"folder/below"].xattrs == {}


def test_shim_gives_a_checksum(build: Build, tree: Path) -> None:
    """contract: xattr-checksum. `trust-checksum-xattrs` takes the shim's word too."""
    given = faked({tree / "folder/plain": {"user.checksum.sha256": b"0" * 64}})
    for trust in (True, False):
        (tar,) = clients.layer_tars(
            build(clients.layer_config(tree, **{"trust-checksum-xattrs": trust}), env=given).output
        )
        assert (b"freedesktopsdk.checksum.sha256=" + b"0" * 64 in tar) == trust


def test_every_entry_is_asked_for_by_its_path(build: Build, tree: Path, tmp_path: Path) -> None:
    """contract: xattr-shims. "on the path of the file"; with `skip-xattrs` nothing is asked."""
    log = tmp_path / "log"
    env = {**preload(SOURCE), "FAKECAP_LOG": str(log)}
    build(clients.layer_config(tree), env=env)
    asked = log.read_bytes().split(b"\0")[:-1]
    assert sorted(asked) == sorted(
        [os.fsencode(tree) + b"/.", *(os.fsencode(path) for path in tree.rglob("*"))]
    )
    log.unlink()
    build(clients.layer_config(tree, **{"skip-xattrs": True}), env=env)
    assert not log.exists()


def test_shim_below_path_max(build: Build, tmp_path: Path) -> None:
    """A path that the kernel refuses whole still leads a shim to the file."""
    root = tmp_path / "deep"
    root.mkdir()
    fd = os.open(root, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=fd)
        above, fd = fd, os.open("d" * 250, os.O_RDONLY, dir_fd=fd)
        os.close(above)
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=fd))
    status = os.stat("file", dir_fd=fd)
    os.close(fd)
    env = {
        **preload(SOURCE),
        "FAKECAP": f"{status.st_dev}:{status.st_ino}:security.capability={CAPABILITY.hex()}",
    }
    model = layer_of(build(clients.layer_config(root), env=env).output)
    assert model[b"/".join([b"d" * 250] * 20) + b"/file"].xattrs == {
        "security.capability": CAPABILITY
    }


def test_shim_on_a_parent(build: Build, tree: Path) -> None:
    """contract: diff-unchanged. An attribute that only the shim tells of is a change like any
    other.
    """
    given = attributes(tree)
    config = clients.layer_config(tree)
    parent = build(config, env=faked(given)).output
    config["images"][0]["parent"] = {"image": str(parent)}
    assert set(layer_of(build(config, env=faked(given)).output)) == {b"."}
    given[tree / "folder/below"]["security.capability"] = trees.capability(1)
    changed = layer_of(build(config, env=faked(given)).output)
    assert set(changed) == {b".", b"folder", b"folder/below"}
    assert changed[b"folder/below"].xattrs["security.capability"] == trees.capability(1)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (
            {"user.too-large": b"x" * 65537},
            "its extended attributes cannot be read: Numerical result out of range",
        ),
        (
            {f"user.{number:0255}": b"" for number in range(260)},
            "its extended attributes cannot be listed: Numerical result out of range",
        ),
    ],
    ids=["value", "list"],
)
def test_more_than_the_kernel_allows(
    build: Build, tree: Path, values: dict[str, bytes], what: str
) -> None:
    """contract: xattr-unwritable, promise-nothing-lost.
    "a file that cannot be read ... fails the build and is named"; 64 KiB a value and for all names
    is what Linux has."""
    done = build(
        clients.layer_config(tree), env=faked({tree / "folder/below": values}), check=False
    )
    assert (done.returncode, done.stderr) == (1, f"build-oci: error: {tree}/folder/below: {what}\n")


# fakeroot

MAKE = """
import os, stat
os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
os.mknod("disk", stat.S_IFBLK | 0o660, os.makedev(259, 70000))
for number, name in enumerate(["file", "folder", "symlink", "fifo", "null", "folder/below", "."]):
    os.chown(name, 4294967290 + number % 2, number, follow_symlinks=False)
    os.setxattr(name, "security.capability", bytes.fromhex("CAPABILITY"), follow_symlinks=False)
    os.setxattr(name, "trusted.t", bytes([0x80, 0, number]), follow_symlinks=False)
os.setxattr("file", "user.empty", b"")
os.setxattr("folder", "system.posix_acl_default", bytes.fromhex("ACL"))
for name, mode in {"file": 0o4711, "folder": 0o3777, "null": 0o666}.items():
    os.chmod(name, mode)
""".replace("CAPABILITY", CAPABILITY.hex()).replace("ACL", trees.acl(7).hex())
ORACLE = "import sys, oracles; oracles.write_expected_tar('.', sys.stdout.buffer)"


def test_fakeroot_without_rights(tree: Path, tmp_path: Path) -> None:
    """contract: xattr-shims. As people use it: no capability at all; the oracle runs in the same
    session.
    """
    fakeroot = clients.need("fakeroot")
    powerless: tuple[str, ...] = ()
    if os.geteuid() == 0:
        powerless = (clients.need("setpriv"), "--bounding-set=-all", "--inh-caps=-all")
    (tmp_path / "make.py").write_text(MAKE)
    python, package = shlex.quote(sys.executable), Path(build_oci.__file__).parents[1]
    steps = [
        "../make.py",
        "-P -m build_oci -o ../layout",
        f"-c {shlex.quote(ORACLE)} > ../oracle.tar",
    ]
    script = " && ".join([f"cd {shlex.quote(str(tree))}", *(f"{python} {step}" for step in steps)])
    env = {"PYTHONPATH": f"{package}:{SUPPORT}", "FAKEROOTDONTTRYCHOWN": "1"}
    config = json.dumps(clients.layer_config(tree, compression="disabled"))
    clients.run(*powerless, fakeroot, "sh", "-c", script, env=env, stdin=config)
    (tar,) = clients.layer_tars(tmp_path / "layout")
    assert_same_tar(tar, (tmp_path / "oracle.tar").read_bytes())
    model = layer_of(tmp_path / "layout")
    assert stat.S_ISREG((tree / "null").lstat().st_mode)
    assert (model[b"file"].uid, model[b"file"].gid, model[b"file"].mode) == (4294967290, 0, 0o4711)
    assert (model[b"null"].type, model[b"null"].device, model[b"disk"].device) == (
        tarfile.CHRTYPE,
        (1, 3),
        (259, 70000),
    )
    for number, member in enumerate(
        [b"file", b"folder", b"symlink", b"fifo", b"null", b"folder/below", b"."]
    ):
        assert model[member].xattrs["security.capability"] == CAPABILITY
        assert model[member].xattrs["trusted.t"] == bytes([0x80, 0, number])
    assert model[b"file"].xattrs["user.empty"] == b""
    assert model[b"folder"].xattrs["system.posix_acl_default"] == trees.acl(7)


@pytest.mark.skipif(
    "user" not in trees.abilities().xattrs, reason="no user.* extended attributes here"
)
def test_fakeroot_hides_what_the_disk_holds(tree: Path, tmp_path: Path) -> None:
    """Who believes fakeroot believes it here too: it knows of no attribute that was not set
    inside.
    """
    os.setxattr(tree / "file", "user.real", b"on the disk")
    config = json.dumps(clients.layer_config(tree, compression="disabled"))
    clients.run(
        clients.need("fakeroot"),
        sys.executable,
        "-P",
        "-m",
        "build_oci",
        "-o",
        tmp_path / "layout",
        stdin=config,
    )
    assert layer_of(tmp_path / "layout")[b"file"].xattrs == {}


def test_fakeroot_and_a_shim(tree: Path, tmp_path: Path) -> None:
    """Two shims, one before the other, are both believed."""
    fakeroot = clients.need("fakeroot")
    config = json.dumps(clients.layer_config(tree, compression="disabled"))
    command = shlex.join([sys.executable, "-P", "-m", "build_oci", "-o", f"{tmp_path}/layout"])
    given = faked({tree / "file": {"security.capability": CAPABILITY}})
    env = {"FAKECAP": given["FAKECAP"], "FAKEROOTDONTTRYCHOWN": "1"}
    # fakeroot fakes attributes as well, and asks nobody behind it: the other comes first.
    script = (
        f"chown 12:34 {shlex.quote(str(tree))}/file &&"
        f' LD_PRELOAD="{given["LD_PRELOAD"]}:$LD_PRELOAD" {command}'
    )
    clients.run(fakeroot, "sh", "-c", script, stdin=config, env=env)
    file = layer_of(tmp_path / "layout")[b"file"]
    assert (file.uid, file.gid, file.xattrs) == (12, 34, {"security.capability": CAPABILITY})
