"""Images read out of one archive (contract: parent-archive): parents, parts and previous images as
they are from the directory, and hostile archives refused in one line.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import archives
import clients
import layouts
import pytest
from faults import TIMEOUT, command, environment, make_tree, run, snapshot

from build_oci.cli.command import main
from build_oci.config.load import load_config
from build_oci.errors import BuildOciError, ParentError
from build_oci.oci import archive_source
from build_oci.oci.archive_source import ArchiveSource, layout_path, open_source
from build_oci.pipeline import build

EPOCH = {"SOURCE_DATE_EPOCH": "1"}


def archive_of(layout: Path, path: Path) -> Path:
    """The layout in a tar archive, as the standard library writes it."""
    with tarfile.open(path, "w") as tar:
        for name in sorted(os.listdir(layout)):
            tar.add(layout / name, name)
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A layout of one image with two plain layers."""
    layout = layouts.Layout(tmp_path / "base")
    return layout.index(layouts.image(layout, [layouts.FIRST, layouts.SECOND]))


def image(**settings: Any) -> clients.Document:
    return {"images": [{"os": "linux", "architecture": "amd64", **settings}]}


USES: dict[str, Callable[[str, Path], clients.Document]] = {
    "parent": lambda name, tree: image(
        parent={"image": name, "config": "inherit"}, layer=str(tree)
    ),
    "labels": lambda name, tree: image(
        parent={"image": name, "config": "inherit", "recompress": False},
        config={"Labels": {"a": "b"}},
    ),
    "part": lambda name, tree: image(layers=[{"image": name}, {"add": str(tree)}]),
    "two parts": lambda name, tree: image(layers=[{"image": name}, {"image": name}]),
    "tree": lambda name, tree: image(layer={"image": name}),
    "tree upon itself": lambda name, tree: image(layer={"image": name}, parent={"image": name}),
}


@pytest.mark.parametrize(
    ("use", "compression", "prefix"),
    [
        (use, ("disabled", "zstd")[number % 2], ("", "oci-archive:")[number // 2 % 2])
        for number, use in enumerate(USES)
    ],
)
def test_an_archive_is_as_good_as_the_directory(
    use: str, compression: str, prefix: str, base: Path, tree: Path, tmp_path: Path
) -> None:
    """contract: parent-archive. The same bytes come out, whatever is made of the image."""
    archive = archive_of(base, tmp_path / "base.tar")
    made = []
    for name, source in (("a", str(base)), ("b", f"{prefix}{archive}")):
        config = USES[use](source, tree) | {"compression": compression}
        status, said = run(config, tmp_path / name, **EPOCH)
        assert status == 0
        assert all(": warning: " in line and "hide what" in line for line in said.splitlines())
        made.append(snapshot(tmp_path / name))
    assert made[0] == made[1]


def test_previous_archive(tree: Path, tmp_path: Path) -> None:
    """Its layers are taken again; and a series of builds may keep to one archive."""
    out = tmp_path / "out.tar"
    config = image(layer=str(tree), previous={"image": f"oci-archive:{out}", "optional": True})
    assert run(config, Path(f"oci-archive:{out}"), **EPOCH) == (0, "")
    first = out.read_bytes()
    status, said = run(config, Path(f"oci-archive:{out}"), "-v", **EPOCH)
    assert status == 0
    assert "that of the previous image" in said
    assert out.read_bytes() == first


def test_a_late_edit_of_the_archive_itself(base: Path, tmp_path: Path) -> None:
    """The former archive is read, and replaced by the whole new one."""
    archive = archive_of(base, tmp_path / "image.tar")
    config = image(parent={"image": str(archive), "recompress": False}, author="me")
    assert run(config, Path(f"oci-archive:{archive}"), **EPOCH) == (0, "")
    assert run(config, tmp_path / "layout", **EPOCH)[0] == 0
    assert clients.layer_tars(tmp_path / "layout") == [layouts.FIRST, layouts.SECOND]
    assert sorted(os.listdir(tmp_path)) == ["base", "image.tar", "layout"]


def test_merge_and_verify(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """contract: output-merge, verify. From archives as from directories."""
    archive = archive_of(base, tmp_path / "base.tar")
    assert main(["merge", str(base), "-o", str(tmp_path / "a")]) == 0
    assert main(["merge", f"oci-archive:{archive}", "-o", str(tmp_path / "b")]) == 0
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")
    assert main(["merge", f"oci-archive:{archive}", "-o", f"oci-archive:{archive}"]) == 2
    assert "is one of the layouts" in capsys.readouterr().err
    reports = []
    for name in (str(base), f"oci-archive:{archive}", str(archive)):
        assert main(["verify", "-v", name]) == 0
        reports.append(capsys.readouterr().err.replace(name, "LAYOUT"))
    assert reports[0] == reports[1] == reports[2]
    assert ": nothing is wrong: 1 image, 2 layers" in reports[0]


def test_verify_tells_what_is_wrong_in_an_archive(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same findings: a blob that is damaged, one that is missing, one that nobody needs."""
    blobs = base / "blobs" / "sha256"
    (blobs / hashlib.sha256(layouts.FIRST).hexdigest()).write_bytes(bytes(len(layouts.FIRST)))
    (blobs / hashlib.sha256(layouts.SECOND).hexdigest()).unlink()
    (blobs / ("0" * 64)).write_bytes(b"stray")
    archive = archive_of(base, tmp_path / "base.tar")
    reports = []
    for name in (base, archive):
        assert main(["verify", "-v", str(name)]) == 1
        reports.append(capsys.readouterr().err.replace(str(name), "LAYOUT"))
    assert reports[0] == reports[1]
    for what in ("is damaged", "is missing", "is referred to by nothing"):
        assert what in reports[0]


def test_check_looks_into_an_archive(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """contract: cli-check. Documents are read, and layers must be there."""
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(image(parent={"image": f"oci-archive:{tmp_path}/base.tar"})))
    archive_of(base, tmp_path / "base.tar")
    assert main(["--check", "-f", str(config), "-o", str(tmp_path / "out")]) == 0
    missing = base / "blobs" / "sha256" / hashlib.sha256(layouts.SECOND).hexdigest()
    missing.unlink()
    archive_of(base, tmp_path / "base.tar")
    assert main(["--check", "-f", str(config), "-o", str(tmp_path / "out")]) == 1
    assert (
        capsys.readouterr().err.splitlines()[0]
        == f"build-oci: error: {tmp_path}/base.tar/blobs/sha256/{missing.name}: is missing"
    )


@pytest.mark.clients
def test_clients_write_what_is_read(base: Path, tree: Path, tmp_path: Path) -> None:
    """An archive of skopeo's, compressed layers and all."""
    skopeo = clients.need("skopeo")
    clients.run(
        skopeo, "--insecure-policy", "copy", "--dest-compress-format", "gzip", "--dest-compress",
        f"oci:{base}", f"oci-archive:{tmp_path / 'base.tar'}",
    )  # fmt: skip
    config = image(layer={"image": f"oci-archive:{tmp_path / 'base.tar'}"})
    assert run(config, tmp_path / "squashed", **EPOCH) == (0, "")
    assert run(image(layer={"image": str(base)}), tmp_path / "expected", **EPOCH) == (0, "")
    assert clients.layer_tars(tmp_path / "squashed") == clients.layer_tars(tmp_path / "expected")


# ---- hostile archives

INDEX = archives.header(b"index.json", size=2) + archives.padded(b"{}")
BLOB = b"blobs/sha256/" + b"0" * 64
FILE = archives.header(BLOB, size=1) + archives.padded(b"x")


def longer(content: bytes, size: int) -> bytes:
    """CONTENT with the header of a file that says it has SIZE bytes."""
    return archives.header(b"f", size=size) + archives.padded(content)


HOSTILE: list[tuple[str, bytes, str]] = [
    ("empty", b"", "is no archive of an image layout"),
    ("zeros", bytes(10240), "it has no index.json"),
    ("text", b"x" * 4096, "is no archive of an image layout"),
    ("gzip", b"\x1f\x8b" + bytes(600), "is compressed, and an archive"),
    ("zstd", b"\x28\xb5\x2f\xfd" + bytes(600), "is compressed, and an archive"),
    ("no index", FILE + archives.END, "it has no index.json"),
    ("docker", archives.header(b"manifest.json") + archives.END, "it has no index.json"),
    ("blob twice", INDEX + FILE + FILE + archives.END, "is in the archive twice"),
    (
        "index twice",
        INDEX + archives.header(b"./index.json") + archives.END,
        "is in the archive twice",
    ),
    (
        "symbolic link",
        INDEX + archives.header(b"blobs", b"2", link=b"/etc") + archives.END,
        "neither a file nor a directory",
    ),
    (
        "hard link",
        INDEX + FILE + archives.header(b"blobs/sha256/" + b"1" * 64, b"1", link=BLOB),
        "neither a file nor a directory",
    ),
    ("device", INDEX + archives.header(b"f", b"3"), "neither a file nor a directory"),
    ("FIFO", INDEX + archives.header(b"f", b"6"), "neither a file nor a directory"),
    (
        "sparse",
        INDEX + archives.header(b"f", b"S", magic=archives.GNU),
        "neither a file nor a directory",
    ),
    (
        "sparse by records",
        INDEX + archives.pax((b"GNU.sparse.major", b"1")) + FILE,
        "holds a sparse file",
    ),
    ("absolute", INDEX + archives.header(b"/index.json") + archives.END, "its name leads out"),
    (
        "upwards",
        INDEX + archives.header(b"blobs/../index.json") + archives.END,
        "its name leads out",
    ),
    (
        "long absolute",
        INDEX + archives.pax((b"path", b"/" + b"n" * 300)) + FILE,
        "its name leads out",
    ),
    ("no name", INDEX + archives.header(b""), "its name leads out"),
    ("truncated header", (INDEX + FILE)[:-600], "the archive ends too early"),
    ("truncated content", INDEX + archives.header(BLOB, size=1), "the archive ends too early"),
    ("no end", INDEX + FILE, "the archive ends too early"),
    ("half an end", INDEX + bytes(512) + FILE, "goes on behind its end"),
    ("size lies", INDEX + longer(b"x", 1 << 30), "the archive ends too early"),
    (
        "size lies a little",
        INDEX + longer(b"x" * 512, 511 + 2) + archives.END[:512],
        "the archive ends too early",
    ),
    (
        "binary size",
        INDEX + archives.header(b"f", size=b"\x80" + b"\xff" * 11),
        "the archive ends too early",
    ),
    (
        "negative size",
        INDEX + archives.header(b"f", size=b"\xff" * 12),
        "the archive ends too early",
    ),
    ("odd size", INDEX + archives.header(b"f", size=b"12x4"), "the archive ends too early"),
    (
        "size in records",
        INDEX + archives.pax((b"size", b"99999999")) + FILE,
        "the archive ends too early",
    ),
    (
        "odd size in records",
        INDEX + archives.pax((b"size", b"-1")) + FILE,
        "the archive ends too early",
    ),
    (
        "name for all",
        INDEX + archives.pax((b"path", b"index.json"), kind=b"g") + FILE,
        "an extended header is damaged",
    ),
    (
        "damaged records",
        INDEX + archives.extended(b"8 path=x\n") + FILE,
        "an extended header is damaged",
    ),
    (
        "endless record",
        INDEX + archives.extended(b"99999999999999999999 path=x\n") + FILE,
        "an extended header is damaged",
    ),
    (
        "record of nothing",
        INDEX + archives.extended(b"0 \n") + FILE,
        "an extended header is damaged",
    ),
    (
        "large extension",
        INDEX + archives.extended(b"x" * (1 << 17)) + FILE,
        "an extended header is too large",
    ),
    (
        "large long name",
        INDEX + archives.extended(b"x" * (1 << 17), b"L") + FILE,
        "an extended header is too large",
    ),
    (
        "wrong checksum",
        INDEX + FILE[:1] + b"X" + FILE[2:] + archives.END,
        "no header of a tar archive",
    ),
    ("garbage", INDEX + b"\xff" * 512, "no header of a tar archive"),
]


def check_refused(path: Path, what: str, tmp_path: Path) -> None:
    """Every way to name the archive ends in one line that tells WHAT, with nothing written."""
    (tmp_path / "tree").mkdir()
    before = snapshot(tmp_path)
    for config in (
        image(parent={"image": f"oci-archive:{path}"}),
        image(layer={"image": str(path)}),
        image(layers=[{"image": str(path)}]),
        image(layer=str(tmp_path / "tree"), previous={"image": str(path)}),
    ):
        file = tmp_path.parent / f"{tmp_path.name}.yaml"
        file.write_text(json.dumps(config))
        # The documents of a previous image are looked at when it is needed.
        for more in ([], [] if "previous" in config["images"][0] else ["--check"]):
            status, said = errors_of("-f", str(file), "-o", str(tmp_path / "out"), *more)
            assert status in (1, 2)
            assert what in said[0]
            assert len([line for line in said if not line.startswith("hint: ")]) == 1
    for arguments in (
        ["verify", str(path)],
        ["merge", str(path), "-o", str(tmp_path / "out")],
        ["show", str(path)],
    ):
        status, said = errors_of(*arguments)
        assert status in (1, 2)
        assert any(what in line for line in said)
    assert snapshot(tmp_path) == before


def errors_of(*arguments: str) -> tuple[int, list[str]]:
    """Exit status and lines on standard error, in this process."""
    import contextlib
    import io

    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = main([*arguments])
    return status, said.getvalue().splitlines()


@pytest.mark.parametrize(
    ("content", "what"),
    [case[1:] for case in HOSTILE],
    ids=[case[0] for case in HOSTILE],
)
def test_hostile_archives(content: bytes, what: str, tmp_path: Path) -> None:
    """contract: promise-hostile-input, parent-archive."""
    path = tmp_path / "image.tar"
    path.write_bytes(content)
    check_refused(path, what, tmp_path)


@pytest.mark.parametrize("kind", ["fifo", "directory", "missing", "loop", "socket"])
def test_what_is_no_archive(kind: str, tmp_path: Path) -> None:
    """A FIFO stops nobody."""
    path = tmp_path / "image.tar"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "socket":
        os.mknod(path, 0o140644)
    done = subprocess.run(
        command(tmp_path / "out"), input=json.dumps(image(parent={"image": f"oci-archive:{path}"})),
        env=environment(), capture_output=True, text=True, check=False, timeout=TIMEOUT,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("build-oci: error: <stdin>:1: images[0].parent.image: ")
    assert len(done.stderr.splitlines()) <= 2
    assert not (tmp_path / "out").exists()


def test_an_archive_of_countless_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers are counted, those of directories and of long names too."""
    monkeypatch.setattr(archive_source, "_MOST_HEADERS", 10)
    path = tmp_path / "image.tar"
    for many in (
        archives.header(b"f") * 10,
        archives.header(b"d/", b"5") * 10,
        archives.extended(b"n\0", b"L") * 10,
    ):
        path.write_bytes(INDEX + many + archives.END)
        with pytest.raises(ParentError, match="more members than 10"):
            ArchiveSource(path)


def test_a_huge_index(tmp_path: Path) -> None:
    """It is not read."""
    path = tmp_path / "image.tar"
    size = 64 << 20
    with path.open("wb") as file:
        file.write(archives.header(b"index.json", size=size))
        file.seek(512 + size)
        file.write(archives.END)
    check_refused(path, "index.json: has 67108864 bytes, which is too large", tmp_path)


def test_a_damaged_blob_is_named(base: Path, tmp_path: Path) -> None:
    """A digest that does not hold, by its path in the archive."""
    name = hashlib.sha256(layouts.FIRST).hexdigest()
    archive = archive_of(base, tmp_path / "base.tar")
    data = archive.read_bytes()
    at = data.index(layouts.FIRST)
    archive.write_bytes(data[:at] + b"X" + data[at + 1 :])
    status, said = run(image(layer={"image": str(archive)}), tmp_path / "out")
    assert status == 1
    assert said.startswith(f"build-oci: error: {archive}/blobs/sha256/{name}: is damaged: ")
    assert not (tmp_path / "out").exists()


def test_the_former_archive_is_read_while_a_new_one_takes_its_place(
    base: Path, tmp_path: Path
) -> None:
    """What was opened stays what it was."""
    archive = archive_of(base, tmp_path / "base.tar")
    source = open_source(str(archive))
    index = source.index()
    other = tmp_path / "other.tar"
    other.write_bytes(bytes(1 << 20))
    os.replace(other, archive)
    assert source.index() == index


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a", "a"),
        ("oci:a", "a"),
        ("oci-archive:a", "a"),
        ("./oci:a", "./oci:a"),
        ("oci-archive:oci:a", "oci:a"),
        ("oci-archive:", ""),
    ],
)
def test_names_of_layouts(text: str, path: str) -> None:
    assert layout_path(text) == path


def test_a_name_that_is_only_a_prefix(tmp_path: Path) -> None:
    status, said = run(image(parent={"image": "oci-archive:"}), tmp_path / "out")
    assert status == 2
    assert "images[0].parent.image: is empty" in said


# ---- things that go wrong meanwhile


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree, and beside it an archive of it with a zstd layer."""
    folder = tmp_path_factory.mktemp("small")
    tree = make_tree(folder / "tree", 100_000)
    config = image(layer=str(tree), previous={"image": str(folder / "former"), "optional": True})
    assert run(config, Path(f"oci-archive:{folder / 'image.tar'}"), "--no-sync", **EPOCH) == (0, "")
    (tree / "new").write_text("new")
    return folder


SMALL_USES: dict[str, Callable[[str, str], clients.Document]] = {
    "parent": lambda name, tree: image(layer=tree, parent={"image": name}),
    "previous": lambda name, tree: image(layer=tree, previous={"image": name}),
    "part": lambda name, tree: image(layers=[{"image": name}, {"add": tree}]),
    "tree": lambda name, tree: image(layer={"image": name}),
}


def in_child(work: Callable[[], None]) -> tuple[int, str]:
    """Run WORK in a child of this process: its exit status, negative where a signal ended it, and
    what the error says that it raised.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        except BuildOciError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read().decode()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def replaced(name: str, before: Callable[[Any], None]) -> None:
    """Let the function NAME of `os` call BEFORE, with its first argument."""
    call = getattr(os, name)

    def instead(target: Any, *arguments: Any, **more: Any) -> Any:
        before(target)
        return call(target, *arguments, **more)

    setattr(os, name, instead)


def built_in_child(config: clients.Document, output: str) -> None:
    build(load_config(json.dumps(config)), output=output, workers=2, epoch=2, sync=False)


@pytest.mark.once
@pytest.mark.parametrize("use", list(SMALL_USES))
def test_every_call_on_the_archive_fails(use: str, small: Path, tmp_path: Path) -> None:
    """Each in turn: one line that names the archive, and nothing is written. What is only read to
    tell why a layer of a previous image is not used is survived.
    """
    archive = small / "image.tar"
    config = SMALL_USES[use](str(archive), str(small / "tree"))
    happened = tmp_path / "happened"

    def failing(nth: int) -> None:
        calls = itertools.count(1)

        def fail(target: Any) -> None:
            path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else target
            if str(path) == str(archive) and next(calls) == nth:
                happened.touch()
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        for name in ("open", "pread"):
            replaced(name, fail)
        built_in_child(config, str(tmp_path / "out"))

    for nth in range(1, 200):
        happened.unlink(missing_ok=True)
        status, said = in_child(lambda nth=nth: failing(nth))  # type: ignore[misc]
        if status:
            assert status == 1
            assert f"{archive}" in said
            assert "Input/output error" in said
            assert not (tmp_path / "out").exists()
        else:
            assert use == "previous" or not happened.exists()
            shutil.rmtree(tmp_path / "out")
        if not happened.exists():
            assert status == 0
            assert nth > 20
            break
    else:
        pytest.fail("there is no end of calls")


# What a build does to the file system, by the name of the function.
CHANGES = ("open", "write", "pwrite", "mkdir", "link", "unlink", "rmdir", "replace",
           "copy_file_range", "sendfile", "close")  # fmt: skip


def killed_at(nth: int, config: clients.Document, output: str) -> bool:
    """A build that is killed before its NTH such call. Did it come to its end before?"""

    def work() -> None:
        left = itertools.count(nth - 1, -1)

        def end(_: Any) -> None:
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        for name in CHANGES:
            replaced(name, end)
        built_in_child(config, output)

    status, said = in_child(work)
    assert said == ""
    assert status in (0, -signal.SIGKILL)
    return status == 0


@pytest.mark.once
def test_killed_at_fifty_moments(small: Path, tmp_path: Path) -> None:
    """contract: parent-archive, output-archive. A late edit of an archive in its own place leaves
    the former archive or the new one, wherever it ends; the next build clears what is left.
    """
    folder = tmp_path / "folder"
    folder.mkdir()
    archive = folder / "image.tar"
    former = (small / "image.tar").read_bytes()
    config = SMALL_USES["part"](str(archive), str(small / "tree"))
    archive.write_bytes(former)
    assert run(config, Path(f"oci-archive:{archive}"), "--no-sync", SOURCE_DATE_EPOCH="2") == (
        0,
        "",
    )
    new = archive.read_bytes()
    assert new != former
    moments = 0
    for nth in itertools.count(1):
        archive.write_bytes(former)
        ended = killed_at(nth, config, f"oci-archive:{archive}")
        assert archive.read_bytes() in ([new] if ended else [former, new])
        if ended:
            break
        moments += 1
    assert moments >= 50
    assert run(config, Path(f"oci-archive:{archive}"), "--no-sync", SOURCE_DATE_EPOCH="2") == (
        0,
        "",
    )
    assert os.listdir(folder) == ["image.tar"]


@pytest.mark.once
def test_two_builds_write_one_archive(small: Path, tmp_path: Path) -> None:
    """At once: it is that of the one or of the other, as a whole."""
    archive = tmp_path / "image.tar"
    configs = [
        image(
            parent={"image": f"{small}/image.tar", "config": "inherit"},
            config={"Labels": {"a": label}},
        )
        for label in "xy"
    ]
    wanted = []
    for config in configs:
        assert run(config, Path(f"oci-archive:{archive}"), "--no-sync", **EPOCH) == (0, "")
        wanted.append(archive.read_bytes())
    for _ in range(2):
        builds = [
            subprocess.Popen(
                command(Path(f"oci-archive:{archive}"), "--no-sync"),
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(**EPOCH),
                text=True,
            )
            for _ in configs
        ]
        for process, config in zip(builds, configs, strict=True):
            assert process.stdin is not None
            process.stdin.write(json.dumps(config))
            process.stdin.close()
        for process in builds:
            assert process.wait(TIMEOUT) == 0
            assert process.stderr is not None
            assert process.stderr.read() == ""
            process.stderr.close()
        assert archive.read_bytes() in wanted
        assert os.listdir(tmp_path) == ["image.tar"]
