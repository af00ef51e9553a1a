"""What keeps an image from booting with bootc or from being sealed with composefs, as far as its
layers and its labels tell.

Facts come from `bootc container lint` (its lints are named in brackets) and from what composefs
does with such archives. A finding that is no problem is a warning here: the image boots, but
something of it is lost, hidden or not the same everywhere.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from build_oci.errors import counted
from build_oci.verify.findings import Finding
from build_oci.verify.names import LINK, Tree, show_name

if TYPE_CHECKING:
    from build_oci._native.lower import Member

_SECOND = 10**9
_SHOWN = 5  # names of one kind of finding
_MOST_LAYERS = 127  # that Docker and the kernel's overlay mounts take by default
_API_DIRECTORIES = ("dev", "proc", "sys", "run", "tmp", "var")
_PREPARE_ROOT = (b"usr/lib/ostree/prepare-root.conf", b"etc/ostree/prepare-root.conf")
_CHECKED_AT_ONCE = 4096
_MOST_LOGS = 1000  # whose sizes are remembered

_BOOTC = "containers.bootc"
_OSTREE_BOOTABLE = "ostree.bootable"
_FINAL_DIFF_ID = "ostree.final-diffid"
_COMMIT = "ostree.commit"


def boot_labels(config: Mapping[str, Any]) -> dict[str, str]:
    """The labels of an image's CONFIG that matter here; empty where it is damaged."""
    section = config.get("config")
    labels = section.get("Labels") if isinstance(section, dict) else None
    wanted = (_BOOTC, _OSTREE_BOOTABLE, _FINAL_DIFF_ID, _COMMIT)
    return (
        {name: str(labels[name]) for name in wanted if name in labels}
        if isinstance(labels, dict)
        else {}
    )


class _Names:
    """One kind of finding, with the first names that it is about."""

    def __init__(self, what: str, *, is_problem: bool) -> None:
        """WHAT: a sentence whose end is the names."""
        self._what = what
        self._is_problem = is_problem
        self._first: list[bytes] = []
        self._count = 0

    def add(self, name: bytes) -> None:
        self._count += 1
        if self._count <= _SHOWN:
            self._first.append(name)

    def findings(self) -> Iterator[Finding]:
        if self._count:
            more = f" and {self._count - _SHOWN:,} more" if self._count > _SHOWN else ""
            yield Finding(
                self._is_problem, f"{self._what}: {', '.join(map(show_name, self._first))}{more}"
            )


class BootImage:
    """One image, layer by layer: `layer` for each, from the lowest on, before it is applied to the
    tree; `image` at the end.
    """

    def __init__(self, tree: Tree, check: Callable[[], None]) -> None:
        """TREE: what the layers so far leave. CHECK is called again and again, and may raise to
        stop this.
        """
        self._tree = tree
        self._check = check
        self._targets: dict[bytes, bytes] = {}  # of the link that ostree needs
        self._sizes: dict[bytes, int] = {}  # of files that should be empty, or should not
        self._layers = 0

    def layer(self, members: Iterable[Member], *, chunked: bool) -> Iterator[Finding]:
        """What is wrong or odd with the layer of MEMBERS, which are in the order of the archive.
        CHUNKED: it is zstd:chunked.
        """
        self._layers += 1
        if chunked:
            yield Finding(
                False,
                "is zstd:chunked, which has many frames; composefs-rs before 0.9.2 reads only the"
                " first",
            )
        not_utf8 = _Names("bootc needs names in UTF-8 [utf8]", is_problem=True)
        early = _Names("composefs refuses times before 1970", is_problem=True)
        fractions = _Names(
            "versions of composefs differ over fractions of a second, and so would the digest",
            is_problem=False,
        )
        newlines = _Names(
            "older bootc and composefs cut extended attributes at a byte 0x0A, which these have",
            is_problem=False,
        )
        orphans = _Names(
            "composefs refuses an archive that does not name the directory of an entry before it",
            is_problem=True,
        )
        through = _Names("composefs refuses an entry below a symbolic link", is_problem=True)
        outward = _Names(
            "a hard link leads to a file of a layer below, which composefs follows and other"
            " clients copy",
            is_problem=False,
        )
        added: dict[bytes, bool] = {b"": True}  # names of this layer: is it a directory?
        gone: set[bytes] = set()
        for number, member in enumerate(members):
            if number % _CHECKED_AT_ONCE == 0:
                self._check()
            name = member["name"]
            folder, _, last = name.rpartition(b"/")
            if name and folder not in added:
                below = None if folder in gone else self._tree.look(folder)
                if below == LINK:
                    through.add(name)
                elif not isinstance(below, dict):
                    orphans.add(name)
                added[folder] = True  # is told once
            if last.startswith(b".wh."):
                gone.add((folder + b"/" if folder else b"") + last[len(b".wh.") :])
                continue
            added[name] = stat.S_ISDIR(member["mode"])
            target = member["target"]
            if not _is_utf8(last) or (target and not member["hard_link"] and not _is_utf8(target)):
                not_utf8.add(name)
            if member["mtime_ns"] < 0:
                early.add(name)
            elif member["mtime_ns"] % _SECOND:
                fractions.add(name)
            if member["xattr_newline"]:
                newlines.add(name)
            if member["hard_link"] and target not in added:
                outward.add(name)
            self._remember(member)
        for names in (not_utf8, early, orphans, through, newlines, fractions, outward):
            yield from names.findings()

    def _remember(self, member: Member) -> None:
        name = member["name"]
        if name == b"ostree":
            self._targets[name] = member["target"] or b""
        elif name in (b"etc/hostname", b"etc/resolv.conf"):
            self._sizes[name] = member["size"] if stat.S_ISREG(member["mode"]) else -1
        elif (
            name.startswith(b"var/log/")
            and stat.S_ISREG(member["mode"])
            and len(self._sizes) < _MOST_LOGS
        ):
            self._sizes[name] = member["size"]

    def image(self, labels: Mapping[str, str], diff_ids: Sequence[str | None]) -> Iterator[Finding]:
        """What is wrong or odd with the whole.

        LABELS: those of `boot_labels`. DIFF_IDS: of all layers.
        """
        if labels.get(_BOOTC) != "1" and _OSTREE_BOOTABLE not in labels:
            yield Finding(
                True, f"has no label {_BOOTC}: “1”, by which installers know an image that boots"
            )
        final = labels.get(_FINAL_DIFF_ID)
        if final is not None and final not in diff_ids:
            yield Finding(
                True,
                f"its label {_FINAL_DIFF_ID} is stale: no layer has that diff_id, and bootc looks"
                " for it",
            )
        elif (final is not None or _COMMIT in labels) and not isinstance(
            self._tree.look(b"sysroot/ostree/repo"), dict
        ):
            name = _FINAL_DIFF_ID if final is not None else _COMMIT
            yield Finding(
                False, f"its label {name} is stale: there is no /sysroot/ostree/repo in the image"
            )
        if self._layers > _MOST_LAYERS:
            yield Finding(
                False, f"has {counted(self._layers, 'layer')}; Docker takes {_MOST_LAYERS}"
            )
        if not self._tree.incomplete:
            yield from self._directories()
            yield from self._kernel()
            yield from self._state()

    def _directories(self) -> Iterator[Finding]:
        if not isinstance(self._tree.look(b"usr"), dict):
            yield Finding(
                True,
                "has no directory /usr, of which composefs takes what it needs to know of the root",
            )
        if not isinstance(self._tree.look(b"sysroot"), dict):
            yield Finding(True, "has no directory /sysroot [baseimage-root]")
        if self._tree.look(b"ostree") != LINK or self._targets.get(b"ostree") != b"sysroot/ostree":
            yield Finding(True, "has no symbolic link /ostree to sysroot/ostree [baseimage-root]")
        if missing := [
            f"/{name}"
            for name in _API_DIRECTORIES
            if not isinstance(self._tree.look(name.encode()), dict)
        ]:
            yield Finding(
                True,
                "lacks directories that the system mounts upon [api-base-directories]:"
                f" {', '.join(missing)}",
            )
        if self._tree.look(b"etc") is not None and self._tree.look(b"usr/etc") is not None:
            yield Finding(True, "has /etc and /usr/etc; an image may have /etc alone [etc-usretc]")
        if self._tree.look(b"var/run") not in (None, LINK):
            yield Finding(True, "/var/run is no symbolic link [var-run]")

    def _kernel(self) -> Iterator[Finding]:
        modules = self._tree.look(b"usr/lib/modules")
        below = modules.items() if isinstance(modules, dict) else ()
        kernels = sorted(
            name for name, inside in below if isinstance(inside, dict) and b"vmlinuz" in inside
        )
        boot = self._tree.look(b"boot")
        in_boot = boot if isinstance(boot, dict) else {}
        linux = self._tree.look(b"boot/EFI/Linux")
        is_sealed = isinstance(linux, dict) and any(name.endswith(b".efi") for name in linux)
        if len(kernels) > 1:
            yield Finding(
                True,
                f"has {len(kernels)} kernels in /usr/lib/modules; bootc takes one [kernel]:"
                f" {_listed(kernels)}",
            )
        elif not kernels and not is_sealed:
            yield Finding(
                True,
                "has no kernel: neither /usr/lib/modules/VERSION/vmlinuz nor a UKI in"
                " /boot/EFI/Linux",
            )
        elif kernels and not is_sealed and b"initramfs.img" not in modules[kernels[0]]:  # type: ignore[index]
            yield Finding(
                False,
                "has no initramfs.img beside the kernel in"
                f" /usr/lib/modules/{show_name(kernels[0])}",
            )
        if not is_sealed and all(self._tree.look(name) is None for name in _PREPARE_ROOT):
            yield Finding(
                False,
                "has no /usr/lib/ostree/prepare-root.conf, which turns composefs on"
                " [baseimage-composefs]",
            )
        if boot is None:
            yield Finding(False, "has no directory /boot [nonempty-boot]")
        # The UKI of a sealed image lies in /boot/EFI.
        if others := sorted(in_boot.keys() - {b"EFI"}):
            yield Finding(
                False,
                f"/boot is not empty, and hidden at run time [nonempty-boot]: {_listed(others)}",
            )

    def _state(self) -> Iterator[Finding]:
        """What belongs to a machine, not to an image."""
        for name in (b"run", b"tmp"):
            inside = self._tree.look(name)
            if isinstance(inside, dict) and inside:
                yield Finding(
                    False,
                    f"/{name.decode()} is not empty [nonempty-run-tmp]: {_listed(sorted(inside))}",
                )
        files = _Names(
            "/var has files, which only the first installation gets, never an update"
            " [var-tmpfiles]",
            is_problem=False,
        )
        logs = _Names("/var/log has logs [var-log]", is_problem=False)
        for number, name in enumerate(self._files_below(b"var")):
            if number % _CHECKED_AT_ONCE == 0:
                self._check()
            (logs if name.startswith(b"var/log/") and self._sizes.get(name) else files).add(name)
        yield from files.findings()
        yield from logs.findings()
        for name in (b"etc/hostname", b"etc/resolv.conf"):
            if self._sizes.get(name) == 0 and self._tree.look(name) is not None:
                yield Finding(
                    False,
                    f"/{name.decode()} is empty, as builders of containers leave it"
                    " [buildah-injected]",
                )

    def _files_below(self, top: bytes) -> Iterator[bytes]:
        """What is neither a directory nor a symbolic link."""
        waiting = [(top, self._tree.look(top))]
        while waiting:
            path, node = waiting.pop()
            for last, inside in sorted(node.items()) if isinstance(node, dict) else ():
                if isinstance(inside, dict):
                    waiting.append((path + b"/" + last, inside))
                elif inside != LINK:
                    yield path + b"/" + last


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _listed(names: Sequence[bytes]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(map(show_name, names[:_SHOWN])) + more
