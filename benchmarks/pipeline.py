"""Measures the way from a tree to a registry: `build-oci` alone, and podman with chunkah.

docs/pipeline.md describes it; podman, an overlay and chunkah do the same job. As root:

    python benchmarks/pipeline.py SCRATCH TREE [UPDATED] [--chunkah PATH] [--only before|after]

TREE is a Debian root; its package lists are the map of who owns what. UPDATED is the same system
some weeks later: the second night. Each step is a process or a few; prints the seconds by the clock
and of all CPUs, and what it leaves on the disk of SCRATCH, where the registry's storage does not
count. skopeo stands for `podman pull`, `load` and `push`, buildah for `podman build`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "pipeline"
REGISTRY = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {storage}}}}}
http: {{addr: "{address}"}}
"""
ADDRESS = "127.0.0.1:5123"
VERSION = "42.1"
CAPABILITY = "0100000200200000000000000000000000000000"  # cap_net_raw+p


def used(path: Path) -> int:
    """Bytes of disk below PATH; hard links count once, other file systems do not."""
    done = subprocess.run(["du", "-sxB1", path], capture_output=True, text=True, check=False)
    return int(done.stdout.split()[0])


def step(name: str, scratch: Path, action: Callable[[], object]) -> None:
    before, held = resource.getrusage(resource.RUSAGE_CHILDREN), used(scratch)
    started = time.perf_counter()
    action()
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    more = (used(scratch) - held) / 1e6
    print(f"{name:44} {wall:8.1f} s {cpu:8.1f} s CPU {more:9.0f} MB", flush=True)


def run(*command: str | Path, stdin: str = "", **env: str) -> str:
    done = subprocess.run(
        command,
        input=stdin,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, **env},
    )
    return done.stdout


@contextlib.contextmanager
def registry(folder: Path) -> Iterator[None]:
    folder.mkdir()
    config = folder / "config.yml"
    config.write_text(REGISTRY.format(storage=folder / "storage", address=ADDRESS))
    server = subprocess.Popen(
        ["docker-registry", "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(1)
    try:
        yield
    finally:
        server.terminate()
        server.wait()


def hand_over(site: Path, tree: Path) -> None:
    """The map and the capabilities of TREE, as a build system gives them."""
    root = site / "root"
    root.unlink(missing_ok=True)
    root.symlink_to(tree)
    listed = []
    for file in sorted((tree / "var/lib/dpkg/info").glob("*.list")):
        listed.append(f"{file.stem.partition(':')[0]}:\n")
        listed += [f"\t{line}\n" for line in file.read_text().splitlines()]
    (site / "ownership.tsv").write_text(run(EXAMPLE / "ownership", root, stdin="".join(listed)))
    (site / "capabilities").write_text(f"{CAPABILITY} usr/bin/mount\n")


def after(site: Path, tag: str) -> None:
    """The example, as it stands there."""
    command = site / "bin" / "build-oci"
    if not command.exists():
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m build_oci "$@"\n')
        command.chmod(0o755)
        shim = site / "fakecap.so"
        run("cc", "-shared", "-fPIC", "-O2", "-o", shim, EXAMPLE / "fakecap.c", "-ldl")
    done = subprocess.run(
        [EXAMPLE / "build", VERSION, f"docker://{ADDRESS}/after:{tag}", "--dest-tls-verify=false"],
        cwd=site,
        check=False,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "FAKECAP": f"{site}/fakecap.so",
            "PATH": f"{site}/bin:{os.environ['PATH']}",
        },
    )
    if done.returncode:
        sys.exit(done.stderr)
    print(*(line for line in done.stderr.splitlines() if line.startswith("sha256:")), sep="\n")


class Before:
    """The chain, step by step. Each leaves what the next one reads."""

    def __init__(self, scratch: Path, tree: Path, ownership: Path, chunkah: Path | None) -> None:
        self._scratch, self._tree, self._ownership, self._chunkah = (
            scratch,
            tree,
            ownership,
            chunkah,
        )
        scratch.mkdir()
        self._root, self._run = scratch / "storage", scratch / "run"
        self._mounted = scratch / "merged"

    def _stored(self, name: str) -> str:
        return f"containers-storage:[overlay@{self._root}+{self._run}]{name}"

    def _buildah(self, *words: str | Path) -> str:
        return run("buildah", "--root", self._root, "--runroot", self._run, *words).strip()

    def build(self) -> None:
        image = {"os": "linux", "architecture": "amd64", "layer": str(self._tree)}
        document = json.dumps({"gzip": "disabled", "images": [image]})
        command = [sys.executable, "-m", "build_oci", "-o", str(self._scratch / "layout")]
        run(*command, stdin=document, SOURCE_DATE_EPOCH="1321009871")

    def pull(self) -> None:
        run("skopeo", "copy", "-q", f"oci:{self._scratch}/layout", self._stored("os:raw"))

    def squash(self) -> None:
        container = self._buildah("from", "os:raw")
        release = self._scratch / "os-release"
        release.write_text(f'VERSION_ID="{VERSION}"\n')
        self._buildah("copy", "-q", container, release, "/usr/lib/os-release")
        self._buildah("config", "--label", "containers.bootc=1", container)
        self._buildah("commit", "-q", "--squash", "--rm", container, "os:squashed")

    def attributes(self) -> None:
        lower = self._buildah("mount", self._buildah("from", "--name", "mounted", "os:squashed"))
        for name in ("upper", "work", "merged"):
            (self._scratch / name).mkdir()
        options = f"lowerdir={lower},upperdir={self._scratch}/upper,workdir={self._scratch}/work"
        run("mount", "-t", "overlay", "overlay", "-o", options, self._mounted)
        program = (
            "import os, sys\n"
            "for line in open(sys.argv[2], 'rb'):\n"
            "    path, component = line.rstrip(b'\\n').split(b'\\t')[:2]\n"
            "    path = os.path.join(os.fsencode(sys.argv[1]), path)\n"
            "    if os.path.isfile(path) and not os.path.islink(path):\n"
            "        os.setxattr(path, 'user.component', component)\n"
            "        os.setxattr(path, 'user.update-interval', b'weekly')\n"
        )
        run(sys.executable, "-c", program, self._mounted, self._ownership)

    def chunk(self) -> None:
        assert self._chunkah
        # the shape of `podman inspect`
        config = json.dumps({"Labels": {"containers.bootc": "1"}})
        run(
            *(
                self._chunkah,
                "build",
                "--rootfs",
                self._mounted,
                "--max-layers",
                "120",
                "--skip-special-files",
            ),
            *("--config-str", config, "-o", f"oci-archive:{self._scratch}/chunked.tar"),
            SOURCE_DATE_EPOCH="1321009871",
        )

    def load(self) -> None:
        archive = f"oci-archive:{self._scratch}/chunked.tar"
        run("skopeo", "copy", "-q", archive, self._stored("os:chunked"))

    def push(self) -> None:
        name = "os:chunked" if self._chunkah else "os:squashed"
        run(
            *("skopeo", "copy", "-q", "--dest-compress", "--dest-compress-format", "zstd"),
            *(
                "--dest-tls-verify=false",
                self._stored(name),
                f"docker://{ADDRESS}/before:{VERSION}",
            ),
        )

    def clear(self) -> None:
        if self._mounted.is_mount():
            run("umount", self._mounted)
        for path in (self._root / "overlay", self._root):
            subprocess.run(["umount", "-R", path], check=False, stderr=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.CalledProcessError):
            self._buildah("rm", "-a")
        for path in (self._root / "overlay", self._root):
            subprocess.run(["umount", "-R", path], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(self._scratch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scratch", type=Path)
    parser.add_argument("trees", type=Path, nargs="+")
    parser.add_argument("--chunkah", type=Path)
    parser.add_argument("--only", choices=["before", "after"])
    arguments = parser.parse_args()
    scratch: Path = arguments.scratch.absolute()
    scratch.mkdir()
    site = scratch / "after"
    site.mkdir()
    with registry(scratch / "registry"):
        hand_over(site, arguments.trees[0].absolute())
        if arguments.only != "before":
            step("the example", site, lambda: after(site, "old"))
            if len(arguments.trees) > 1:
                hand_over(site, arguments.trees[1].absolute())
                step("the example, the next night", site, lambda: after(site, "new"))
        if arguments.only == "after":
            return
        hand_over(site, arguments.trees[0].absolute())
        place = scratch / "before"
        chain = Before(
            place, arguments.trees[0].absolute(), site / "ownership.tsv", arguments.chunkah
        )
        try:
            step("build-oci, one layer, not compressed", place, chain.build)
            step("podman pull", place, chain.pull)
            step("podman build --squash-all", place, chain.squash)
            step("overlay, attributes", place, chain.attributes)
            if arguments.chunkah:
                step("chunkah, 120 layers", place, chain.chunk)
                step("podman load", place, chain.load)
            step("podman push, zstd", place, chain.push)
        finally:
            chain.clear()


if __name__ == "__main__":
    main()
