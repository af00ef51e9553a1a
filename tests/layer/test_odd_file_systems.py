"""File systems that lie, repeat themselves or are exchanged (contract: xattr-checksum,
promise-nothing-lost): one clear error or the right layer, never less."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import clients
import pytest
from faults import fault, quoted, run, unharmed, upon
from places import C_SOURCES
from preload import preload

pytestmark = pytest.mark.platform

SOURCE = C_SOURCES / "oddfs.c"
CHANGED = "changed while it was being read\nhint: nothing may write to the tree during a build\n"
LENGTH = "its content is not as long as the size that the file system tells\n"


def odd(**settings: str | Path) -> dict[str, str]:
    """The environment in which the file system is odd."""
    return preload(SOURCE) | {f"ODD_{name}": str(value) for name, value in settings.items()}


def test_more_attributes_than_clients_read(root: Path, tmp_path: Path) -> None:
    """Go's archive/tar reads 1 MiB of records of one member: more is refused by name, and what is
    written is read again by `verify`.
    """
    output = tmp_path / "output"
    config = clients.layer_config(root, compression="disabled")
    assert run(config, output, **odd(ATTRIBUTES="14")) == (0, "")
    assert (
        subprocess.run(
            [sys.executable, "-P", "-m", "build_oci", "verify", output], check=False
        ).returncode
        == 0
    )
    assert {
        sum(key.startswith("SCHILY") for key in member.pax_headers) for member in members(output)
    } == {14}
    with unharmed(output):
        status, said = run(config, output, **odd(ATTRIBUTES="15"))
    assert (status, said.count("\n")) == (1, 2)
    assert f"{root}: has extended attributes of nearly 1 MiB or more" in said
    assert "hint: remove some, keep the file out with `exclude`, or set skip-xattrs: true\n" in said


def inode(path: Path) -> int:
    return path.lstat().st_ino


def members(layout: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(clients.layer_tars(layout)[-1])) as archive:
        return archive.getmembers()


def recorded(layout: Path, name: str) -> str:
    (member,) = [member for member in members(layout) if member.name == name]
    return member.pax_headers["freedesktopsdk.checksum.sha256"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "d" / "deeper").mkdir(parents=True)
    for name in ("a", "d/b", "d/deeper/c"):
        (root / name).write_text(name)
    return root


def test_names_listed_twice_are_packed_once(root: Path, tmp_path: Path) -> None:
    """contract: layer-names-once. Network file systems list a name twice; directories too, with all
    that they hold.
    """
    (root / ".wh.x").write_text("")
    config = clients.layer_config(root, compression="disabled")
    plain, repeated = (
        run(config, tmp_path / "plain"),
        run(config, tmp_path / "odd", **odd(TWICE="a/d/b/deeper/.wh.x")),
    )
    assert plain == repeated
    assert clients.layer_tars(tmp_path / "plain") == clients.layer_tars(tmp_path / "odd")


@pytest.mark.parametrize("on_parent", [False, True], ids=["alone", "on-parent"])
@pytest.mark.parametrize(
    ("real", "told"),
    [
        (37, 0), (37, 4096), (37, 36), (37, 38),
        (3 << 20, 0), (3 << 20, 5), (3 << 20, (3 << 20) + 1), (3 << 20, (3 << 20) - 1),
    ],
)  # fmt: skip
def test_sizes_that_lie(
    real: int, told: int, on_parent: bool, root: Path, tmp_path: Path, output: Path
) -> None:
    """contract: promise-nothing-lost. A file as of /proc or /sys is never cut, filled up or stored
    as empty without a word.
    """
    path = root / "d" / "b"
    path.write_bytes(b"x" * real)
    config = clients.layer_config(root)
    if on_parent:
        assert run(clients.layer_config(root / "d" / "deeper"), tmp_path / "parent") == (0, "")
        config = upon(config, tmp_path / "parent")
    with unharmed(output):
        status, said = run(config, output, **odd(SIZE=f"{inode(path)}={told}"))
    assert status == 1
    assert said.startswith(f"build-oci: error: {path}: {LENGTH}")


def test_proc_is_refused(tmp_path: Path, output: Path) -> None:
    """The real thing: files of /proc say that they are empty."""
    layer = Path("/proc/sys/kernel/random")
    if not (layer / "boot_id").exists():
        pytest.skip("no /proc/sys here")
    with unharmed(output):
        status, said = run(clients.layer_config(layer), output)
    assert status == 1
    assert f"{layer}/" in said


REWRITE = (
    "import os, sys; p = sys.argv[1]; s = os.stat(p); f = open(p, 'r+b'); f.seek(-1, 2); b ="
    " f.read(1); f.seek(-1, 2);f.write(bytes([b[0] ^ 1])); f.close(); os.utime(p,"
    " ns=(s.st_atime_ns, s.st_mtime_ns))"
)


@pytest.mark.parametrize(
    ("size", "opened", "on_parent"),
    [
        (9000, 2, True),
        ((1 << 20) + 5, 2, False),
        ((1 << 20) + 5, 2, True),
        ((4 << 20) + 1, 4, False),
        ((4 << 20) + 1, 4, True),
    ],
)
def test_what_is_packed_is_what_was_hashed(
    size: int, opened: int, on_parent: bool, root: Path, tmp_path: Path, output: Path
) -> None:
    """contract: layer-checksum-record.
    A write through a mapping moves neither size nor time, so the contents are compared; the last
    byte too."""
    path = root / "d" / "b"
    path.write_bytes(os.urandom(size))
    config = clients.layer_config(root, compression="disabled")
    if on_parent:
        assert run(clients.layer_config(root / "d" / "deeper"), tmp_path / "parent") == (0, "")
        config = upon(config, tmp_path / "parent")
    happened = tmp_path / "happened"
    with unharmed(output):
        do = quoted(sys.executable, "-c", REWRITE, path)
        status, said = run(
            config, output, "-j1", **fault("open", path, opened, do=do, happened=happened)
        )
    assert happened.exists()
    assert (status, said) == (1, f"build-oci: error: {path}: {CHANGED}")


# ---- user.checksum.sha256


def told(root: Path, *names: str) -> tuple[dict[str, str], str]:
    """A table of digests for these files, and the digest, which is not that of their content."""
    digest = hashlib.sha256(b"something else").hexdigest()
    return {"DIGEST": ";".join(f"{inode(root / name)}={digest}" for name in names)}, digest


@pytest.mark.parametrize("skip", [False, True], ids=["", "skip-xattrs"])
@pytest.mark.parametrize(("trust", "believed"), [("auto", True), (True, True), (False, False)])
def test_fuse_is_asked_by_name(
    trust: str | bool, believed: bool, skip: bool, root: Path, tmp_path: Path
) -> None:
    """contract: xattr-checksum.
    BuildStream's file system answers by name and lists nothing, whatever `skip-xattrs` says; statfs
    once a device."""
    table, digest = told(root, "a", "d/b")
    config = clients.layer_config(root, **{"trust-checksum-xattrs": trust, "skip-xattrs": skip})
    metrics = tmp_path / "metrics"
    status, said = run(
        config, tmp_path / "out", "--metrics", str(metrics), **odd(FUSE=tmp_path / "asked", **table)
    )
    assert (status, said) == (0, "")
    assert (recorded(tmp_path / "out", "./a") == digest) == believed
    assert recorded(tmp_path / "out", "d/deeper/c") == hashlib.sha256(b"d/deeper/c").hexdigest()
    assert json.loads(metrics.read_text())["images"][0]["digestsBelieved"] == 2 * believed
    if believed:
        assert (tmp_path / "asked").read_text() == "statfs\n"


LISTED = pytest.mark.parametrize("listed", ["", "inodes", "types"])


@LISTED
@pytest.mark.parametrize(("trust", "believed"), [("auto", False), (True, True), (False, False)])
def test_elsewhere_a_listed_checksum_may_be_stale(
    trust: str | bool, believed: bool, listed: str, root: Path, tmp_path: Path
) -> None:
    """contract: xattr-checksum. Outside FUSE nothing drops the attribute at a write, so `auto`
    hashes.
    """
    digest = hashlib.sha256(b"before an edit").hexdigest()
    try:
        os.setxattr(root / "a", "user.checksum.sha256", digest.encode())
    except OSError:
        pytest.skip("no user attributes here")
    metrics = tmp_path / "metrics"
    assert run(
        clients.layer_config(root, **{"trust-checksum-xattrs": trust}),
        tmp_path / "out",
        "--metrics",
        str(metrics),
        **odd(LISTED=listed),
    ) == (0, "")
    assert (recorded(tmp_path / "out", "./a") == digest) == believed
    assert json.loads(metrics.read_text())["images"][0]["digestsBelieved"] == believed
    for member in members(tmp_path / "out"):
        assert not any(
            "checksum" in name for name in member.pax_headers if name.startswith("SCHILY")
        )


# ---- files that are replaced


@LISTED
@pytest.mark.parametrize("moment", ["SWAP", "SWAP_GOT"])
def test_attributes_of_the_file_before(
    moment: str, listed: str, root: Path, tmp_path: Path, output: Path
) -> None:
    """contract: promise-nothing-lost.
    A file that is replaced while its attributes are read goes with its own, or is named."""
    other, path = tmp_path / "other", root / "d" / "b"
    other.write_text("new!")
    path.write_text("old!")
    try:
        os.setxattr(path, "user.note", b"old!")
        os.setxattr(other, "user.note", b"new!")
    except OSError:
        pytest.skip("no user attributes here")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    do = f"[ ! -e {other} ] || mv {other} {path}"
    settings = {moment: "/d/b", "DO": do, "LISTED": listed}
    status, said = run(clients.layer_config(root), output, **odd(**settings))
    assert not other.exists()
    if status:
        assert (status, said) == (1, f"build-oci: error: {path}: {CHANGED}")
        assert listed
    else:
        (member,) = [member for member in members(output) if member.name == "d/b"]
        assert member.pax_headers["SCHILY.xattr.user.note"] == "new!"
        assert recorded(output, "d/b") == hashlib.sha256(b"new!").hexdigest()


# ---- paths


@LISTED
@pytest.mark.parametrize("of", ["link", "file"])
def test_attributes_of_a_file_outside(
    of: str, listed: str, root: Path, tmp_path: Path, output: Path
) -> None:
    """contract: config-layer-path.
    "the tree inside never is followed": a directory that is exchanged for a link lets no attribute
    of another file in."""
    outside, away = tmp_path / "outside", tmp_path / "away"
    outside.mkdir()
    # A link is never opened, and an empty file neither: no later look at it tells.
    (root / "links").mkdir()
    if of == "link":
        (root / "links" / "s").symlink_to("nowhere")
    else:
        (root / "links" / "s").touch()
    (outside / "s").write_text("foreign")
    try:
        os.setxattr(outside / "s", "user.foreign", b"yes")
    except OSError:
        pytest.skip("no user attributes here")
    do = f"[ -e {away} ] || {{ mv {root}/links {away} && ln -s {outside} {root}/links; }}"
    with unharmed(output):
        status, said = run(
            clients.layer_config(root), output, **odd(SWAP="/links/s", DO=do, LISTED=listed)
        )
    assert status == 1
    assert said.startswith(f"build-oci: error: {root}/links")
    assert "changed while it was being read" in said


@LISTED
def test_a_directory_that_is_a_link_for_a_moment(
    listed: str, root: Path, tmp_path: Path, output: Path
) -> None:
    """contract: config-layer-path.
    It is exchanged when the attributes of one file are read, and back when those of another are."""
    outside, away, links = tmp_path / "outside", tmp_path / "away", root / "links"
    for folder in (outside, links):
        folder.mkdir()
        for name in ("1x", "2x"):
            (folder / name).touch()
            try:
                os.setxattr(folder / name, f"user.{folder.name}", b"yes")
            except OSError:
                pytest.skip("no user attributes here")
    do = (
        f"if [ -e {away} ]; then rm {links} && mv {away} {links};"
        f" else mv {links} {away} && ln -s {outside} {links}; fi"
    )
    status, said = run(clients.layer_config(root), output, **odd(SWAP="x", DO=do, LISTED=listed))
    if status:
        assert status == 1
        assert CHANGED in said
    else:
        found = {key for member in members(output) for key in member.pax_headers if "user." in key}
        assert found == {"SCHILY.xattr.user.links"}


def test_attributes_missed_because_of_a_link(root: Path, tmp_path: Path, output: Path) -> None:
    """The other way round: the foreign file has none, and the tree's would be lost."""
    outside, away = tmp_path / "outside", tmp_path / "away"
    outside.mkdir()
    (root / "links").mkdir()
    (root / "links" / "s").symlink_to("nowhere")
    (outside / "s").write_text("foreign")
    do = f"[ -e {away} ] || {{ mv {root}/links {away} && ln -s {outside} {root}/links; }}"
    with unharmed(output):
        status, said = run(clients.layer_config(root), output, **odd(SWAP="/links/s", DO=do))
    assert (status, said) == (1, f"build-oci: error: {root}/links: {CHANGED}")


def test_depth(tmp_path: Path) -> None:
    """Far below PATH_MAX: all is there, in order, and opened from its parent. The longest path is
    the archive's own business.
    """
    descriptor = os.open(tmp_path, os.O_RDONLY)
    count = 1500
    for level in range(count):
        os.mkdir("directory", dir_fd=descriptor)
        below = os.open("directory", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
        if level % 100 == 99:
            file = os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor)
            os.write(file, str(level).encode())
            os.close(file)
    os.close(descriptor)
    try:
        output = tmp_path.with_name(tmp_path.name + "-out")
        assert run(clients.layer_config(tmp_path, compression="disabled"), output, "-j2") == (0, "")
        found = members(output)
        assert len(found) == 1 + count + count // 100
        assert [member.size for member in found if member.isfile()] == [
            len(str(level)) for level in range(99, count, 100)
        ]
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "directory"], check=True)
