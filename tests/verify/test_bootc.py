"""`verify --bootc`: what bootc's own lint, composefs and the installers would say of an image, said
before it is pushed.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import clients
import pytest
from conftest import Build
from layouts import Layout, image, set_to

from build_oci.verify.bootc import BootImage
from build_oci.verify.names import Tree
from build_oci.verify.verifier import verify

pytestmark = pytest.mark.once

Entry = tuple[str, bytes, dict[str, Any]]
DIRECTORY, FILE, LINK, HARD = tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
_ENTRIES: list[Entry] = [
    *(
        (name, DIRECTORY, {})
        for name in [
            "boot",
            "dev",
            "etc",
            "proc",
            "run",
            "sys",
            "sysroot",
            "tmp",
            "usr",
            "usr/lib",
            "var",
        ]
    ),
    ("usr/lib/modules", DIRECTORY, {}),
    ("usr/lib/modules/6.1", DIRECTORY, {}),
    ("usr/lib/modules/6.1/vmlinuz", FILE, {"content": b"kernel"}),
    ("usr/lib/modules/6.1/initramfs.img", FILE, {"content": b"initramfs"}),
    ("usr/lib/ostree", DIRECTORY, {}),
    ("usr/lib/ostree/prepare-root.conf", FILE, {"content": b"[composefs]\nenabled = yes\n"}),
    ("ostree", LINK, {"linkname": "sysroot/ostree"}),
]
BOOTABLE = {entry[0]: entry for entry in _ENTRIES}


def packed(entries: Sequence[Entry]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        for name, kind, more in entries:
            info = tarfile.TarInfo(name)
            info.type = kind
            content = more.get("content", b"")
            info.size, info.mode = len(content), 0o755
            for key, value in more.items():
                if key != "content":
                    setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def findings(path: Path) -> tuple[list[str], list[str]]:
    """Problems and warnings, without the places."""
    problems: list[str] = []
    warnings: list[str] = []
    found = verify(
        str(path),
        workers=1,
        problem=problems.append,
        note=lambda _: None,
        warning=warnings.append,
        bootc=True,
    )
    assert (found.mismatches, found.warnings) == (len(problems), len(warnings))
    return [line.partition(": ")[2] for line in problems], [
        line.partition(": ")[2] for line in warnings
    ]


def looked_at(
    tmp_path: Path,
    *layers: Sequence[Entry],
    less: Sequence[str] = (),
    labels: dict[str, str] | None = None,
) -> tuple[list[str], list[str]]:
    """The findings of a bootable image without the names LESS, with LAYERS in and upon it: the
    first one goes on its first layer.
    """
    first = [entry for name, entry in BOOTABLE.items() if name not in less]
    archives = [packed([*first, *(layers[0] if layers else ())]), *map(packed, layers[1:])]
    layout = Layout(tmp_path / "layout")
    config = set_to("config", {"Labels": {"containers.bootc": "1"} if labels is None else labels})
    return findings(layout.index(image(layout, archives, config=config)))


def test_nothing_is_wrong(tmp_path: Path) -> None:
    assert looked_at(tmp_path, [], [("etc", DIRECTORY, {}), ("etc/os-release", FILE, {})]) == (
        [],
        [],
    )


def file(name: str, **more: Any) -> Entry:
    return (name, FILE, {"content": b"x", **more})


CASES: list[tuple[str, list[Sequence[Entry]], list[str], str, bool]] = [
    # name, layers, what the first one lacks, what is said, is it a problem
    ("sysroot", [], ["sysroot"], "has no directory /sysroot", True),
    ("ostree", [], ["ostree"], "has no symbolic link /ostree", True),
    ("ostree elsewhere", [[("ostree", LINK, {"linkname": "elsewhere"})]], ["ostree"],
     "has no symbolic link /ostree", True),
    ("api", [], ["dev", "proc"],
     "lacks directories that the system mounts upon [api-base-directories]: /dev, /proc", True),
    ("usr/etc", [[("usr/etc", DIRECTORY, {})]], [], "has /etc and /usr/etc", True),
    ("var/run", [[("var/run", DIRECTORY, {})]], [], "/var/run is no symbolic link", True),
    ("no kernel", [], ["usr/lib/modules/6.1/vmlinuz"], "has no kernel", True),
    ("two", [[("usr/lib/modules/6.2", DIRECTORY, {}), file("usr/lib/modules/6.2/vmlinuz")]], [],
     "has 2 kernels", True),
    ("initramfs", [], ["usr/lib/modules/6.1/initramfs.img"],
     "has no initramfs.img beside the kernel", False),
    ("no UKI", [[("boot/EFI", DIRECTORY, {}), ("boot/EFI/Linux", DIRECTORY, {}),
      file("boot/EFI/Linux/a.efi.txt")]], ["usr/lib/modules/6.1/vmlinuz"], "has no kernel", True),
    ("prepare-root", [], ["usr/lib/ostree/prepare-root.conf"], "[baseimage-composefs]", False),
    ("no boot", [], ["boot"], "has no directory /boot", False),
    ("kernel in boot", [[file("boot/vmlinuz-6.1")]], [],
     "hidden at run time [nonempty-boot]: “vmlinuz-6.1”", False),
    ("name", [[file("etc/caf\udce9")]], [], "bootc needs names in UTF-8 [utf8]: “etc/caf", True),
    ("target", [[("etc/a", LINK, {"linkname": "caf\udce9"})]], [],
     "bootc needs names in UTF-8 [utf8]: “etc/a”", True),
    ("early", [[file("etc/a", mtime=-1)]], [], "composefs refuses times before 1970: “etc/a”",
     True),
    ("fraction", [[file("etc/a", mtime=1.5)]], [], "differ over fractions of a second", False),
    (
        "newline",
        [[file("etc/a", pax_headers={
            "SCHILY.xattr.security.capability": "\x01\x00\x00\x02\n" + "\x00" * 15,
        })]],
        [],
        "cut extended attributes at a byte 0x0A, which these have: “etc/a”",
        False,
    ),
    ("orphan", [[file("opt/a"), file("opt/b")]], [],
     "does not name the directory of an entry before it: “opt/a”", True),
    ("orphan of a whiteout", [[], [file("usr/.wh.lib", content=b""), file("usr/lib/a")]],
     ["usr/lib/modules"], "“usr/lib/a”", True),
    ("through", [[("lib", LINK, {"linkname": "usr/lib"})], [file("lib/a")]], [],
     "refuses an entry below a symbolic link: “lib/a”", True),
    ("outward", [[file("etc/a")], [("etc", DIRECTORY, {}), ("etc/b", HARD, {"linkname": "etc/a"})]],
     [], "file of a layer below", False),
    ("run", [[file("run/a")]], [], "/run is not empty [nonempty-run-tmp]: “a”", False),
    ("var", [[("var/lib", DIRECTORY, {}), file("var/lib/a")]], [],
     "/var has files, which only the first installation gets", False),
    ("logs", [[("var/log", DIRECTORY, {}), file("var/log/a")]], [],
     "/var/log has logs [var-log]: “var/log/a”", False),
    ("injected", [[file("etc/hostname", content=b"")]], [], "/etc/hostname is empty", False),
    ("many", [[file(f"etc/{number}", mtime=-1) for number in range(9)]], [], "“etc/4” and 4 more",
     True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("layers", "less", "said", "is_problem"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_one_thing_is_wrong(
    tmp_path: Path, layers: list[Sequence[Entry]], less: list[str], said: str, is_problem: bool
) -> None:
    problems, warnings = looked_at(tmp_path, *layers, less=less)
    assert any(said in line for line in (problems if is_problem else warnings)), (
        problems,
        warnings,
    )


def test_what_a_whiteout_hides_is_not_there(tmp_path: Path) -> None:
    """A kernel, a log and a file in /boot of a lower layer."""
    lower = [
        ("var/log", DIRECTORY, {}),
        file("var/log/a"),
        file("boot/vmlinuz"),
        ("usr/etc", DIRECTORY, {}),
    ]
    upper = [file(name, content=b"") for name in ["var/.wh.log", "boot/.wh.vmlinuz", "usr/.wh.etc"]]
    assert looked_at(tmp_path, lower, upper) == ([], [])


def test_uki(tmp_path: Path) -> None:
    """A sealed image has its kernel in the last layer."""
    last: list[Entry] = [(name, DIRECTORY, {}) for name in ["boot", "boot/EFI", "boot/EFI/Linux"]]
    assert looked_at(
        tmp_path, [], [*last, file("boot/EFI/Linux/a.efi")], less=["usr/lib/modules/6.1/vmlinuz"]
    ) == ([], [])


@pytest.mark.parametrize(
    ("labels", "problems", "warnings"),
    [
        (
            {},
            ["has no label containers.bootc: “1”, by which installers know an image that boots"],
            [],
        ),
        ({"ostree.bootable": "true"}, [], []),
        (
            {"containers.bootc": "1", "ostree.commit": "a"},
            [],
            ["ostree.commit is stale: there is no /sysroot/ostree/repo"],
        ),
        (
            {"containers.bootc": "1", "ostree.final-diffid": "sha256:" + "0" * 64},
            ["ostree.final-diffid is stale"],
            [],
        ),
    ],
)
def test_labels(
    tmp_path: Path, labels: dict[str, str], problems: list[str], warnings: list[str]
) -> None:
    for lines, wanted in zip(looked_at(tmp_path, labels=labels), (problems, warnings), strict=True):
        assert len(lines) == len(wanted), lines
        assert all(part in line for part, line in zip(wanted, lines, strict=True))


def test_many_layers(tmp_path: Path) -> None:
    assert looked_at(tmp_path, *[[] for _ in range(127)]) == ([], [])
    assert looked_at(tmp_path / "more", *[[] for _ in range(128)]) == (
        [],
        ["has 128 layers; Docker takes 127"],
    )


def test_chunked(build: Build, tmp_path: Path) -> None:
    """Its layers have many frames, unlike those of zstd."""
    (tmp_path / "tree").mkdir()
    for compression, count in (("zstd", 0), ("zstd:chunked", 1)):
        config = clients.layer_config(tmp_path / "tree", compression=compression)
        _, warnings = findings(build(config).output)
        assert sum("is zstd:chunked" in line for line in warnings) == count


def test_labels_of_any_shape(tmp_path: Path) -> None:
    shapes: list[Any] = [[], {"Labels": []}, {"Labels": {"containers.bootc": {"a": []}}}]
    for number, config in enumerate(shapes):
        layout = Layout(tmp_path / str(number))
        problems, _ = findings(
            layout.index(
                image(layout, [packed(list(BOOTABLE.values()))], config=set_to("config", config))
            )
        )
        assert any("has no label containers.bootc" in line for line in problems)


def test_a_damaged_layer_hides_what_is_there(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    problems, _ = findings(layout.index(image(layout, [b"no archive" * 100])))
    assert not any("sysroot" in line for line in problems)


def test_can_be_stopped() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(BootImage(Tree(), stop).layer(iter([{"name": b"a"}]), chunked=False))  # type: ignore[arg-type]


def test_command(build: Build, tmp_path: Path) -> None:
    """What build-oci makes of a bootable tree has no finding; without --bootc nobody asks; warnings
    leave the exit status alone.
    """
    tree = tmp_path / "tree"
    for name, kind, more in BOOTABLE.values():
        path = tree / name
        if kind == DIRECTORY:
            path.mkdir(parents=True, exist_ok=True)
        elif kind == LINK:
            path.symlink_to(more["linkname"])
        else:
            path.write_bytes(more["content"])
    config = clients.layer_config(tree)
    config["images"][0]["config"] = {"Labels": {"containers.bootc": "1"}}

    def said(layout: Path, *options: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "build_oci", "verify", "--bootc", *options, layout],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stderr

    epoch = {"SOURCE_DATE_EPOCH": "1700000000"}
    assert said(build(config, env=epoch).output) == (0, "")
    (tree / "run" / "left-over").touch()
    status, text = said(build(config, env=epoch).output, "-v")
    assert status == 0
    assert "warning: " in text
    assert "nothing is wrong, 1 warning" in text
    assert said(build(config, env=epoch).output, "-q") == (0, "")
    config["images"][0]["config"] = {}
    status, text = said(build(json.dumps(config), env=epoch).output)
    assert status == 1
    assert "error: " in text
