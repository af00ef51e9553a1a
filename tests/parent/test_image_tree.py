"""`layer: {image: LAYOUT}`: the tree is what that image unpacks to, read from its archives
(contract: late-edits).
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import clients
import oracles
import parents
import pytest
import trees
from archives import END, extended, header, pax
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import Layout, archive, image, set_to
from test_clients import as_buildah_mounts, as_umoci_unpacks, assert_same_tree, changed

from build_oci._native.lower import Lower, TarReader
from build_oci._native.unpack import ImageTree
from build_oci.config.load import load_config
from build_oci.errors import BuildOciError, ParentError, TreeError
from build_oci.parent import layers as layers_module
from build_oci.pipeline import build

# These tests hardly depend on the version of Python.
pytestmark = pytest.mark.once

COMPRESSIONS = parents.COMPRESSIONS
EPOCH = parents.EPOCH


def of_image(layout: Path, **settings_: object) -> clients.Document:
    return {
        "os": "linux",
        "architecture": "amd64",
        "layer": {"image": str(layout), **settings_},
        "index-annotations": {"org.opencontainers.image.ref.name": "latest"},
    }


def diff_ids(layout: Path) -> list[str]:
    content = json.loads(clients.blob(layout, clients.manifest_of(layout)["config"]["digest"]))
    ids: list[str] = content["rootfs"]["diff_ids"]
    return ids


def chain(
    scratch: Path, names: parents.Names, rng: random.Random, codecs: list[str], epoch: int | None
) -> tuple[Path, Path]:
    """The last tree of some that change, and the image of all of them on top of each other, each
    layer in one of CODECS.
    """
    former, tree = None, scratch
    for number, codec in enumerate(codecs):
        if number:
            parents.change(rng, names, 8)
        tree = parents.on_disk(names, scratch / f"tree-{number}")
        settings_: dict[str, Any] = {"recompress": False} if former else {}
        former = parents.built(
            scratch / f"layout-{number}",
            parents.image_of(tree, former, **settings_),
            epoch=epoch,
            compression=codec,
            trust_checksum_xattrs=False,
        )
    assert former
    return tree, former


@settings(max_examples=20)
@given(
    items=trees.trees(whiteout_names=False),
    rng=st.randoms(use_true_random=False),
    codecs=st.lists(st.sampled_from(COMPRESSIONS), min_size=1, max_size=4),
    epoch=st.sampled_from([None, EPOCH]),
    hardlinks=st.sampled_from(["preserve", "copy"]),
)
def test_squashed_is_the_tree(
    tmp_path_factory: pytest.TempPathFactory,
    items: list[trees.Item],
    rng: random.Random,
    codecs: list[str],
    epoch: int | None,
    hardlinks: str,
) -> None:
    """Times agree to the second where a file was left to a parent whose time has no fraction; else
    the archive is the directory's.
    """
    scratch = tmp_path_factory.mktemp("squash")
    tree, layered = chain(scratch, parents.names_of(items), rng, codecs, epoch)
    squashed = parents.built(
        scratch / "squashed", of_image(layered), epoch=epoch, hardlinks=hardlinks
    )
    parents.assert_is(
        parents.model_of(squashed),
        parents.expected_model(tree, epoch=epoch, hardlinks=hardlinks),
    )
    direct = parents.built(
        scratch / "direct",
        parents.image_of(tree),
        epoch=EPOCH,
        hardlinks=hardlinks,
        trust_checksum_xattrs=False,
    )
    again = parents.built(scratch / "again", of_image(layered), epoch=EPOCH, hardlinks=hardlinks)
    assert diff_ids(again) == diff_ids(direct)
    shutil.rmtree(scratch)


@pytest.mark.parametrize("codec", COMPRESSIONS)
def test_one_layer_is_the_same_archive(odd_tree: Path, tmp_path: Path, codec: str) -> None:
    """Byte for byte, times to the nanosecond; and the output holds nothing but blobs."""
    first = parents.built(
        tmp_path / "first",
        parents.image_of(odd_tree),
        compression=codec,
        trust_checksum_xattrs=False,
    )
    second = parents.built(tmp_path / "second", of_image(first))
    assert diff_ids(second) == diff_ids(first)
    assert sorted(os.listdir(tmp_path / "second")) == ["blobs", "index.json", "oci-layout"]


def test_upon_a_parent(tmp_path: Path) -> None:
    """What an image changes on top of another one: the same layer as that of its directory."""
    rng = random.Random(7)
    names = parents.names_of(trees.random_tree(rng, 150))
    below = parents.built(
        tmp_path / "below",
        parents.image_of(parents.on_disk(names, tmp_path / "a")),
        epoch=EPOCH,
        trust_checksum_xattrs=False,
    )
    parents.change(rng, names, 40)
    tree = parents.on_disk(names, tmp_path / "b")
    new = parents.built(
        tmp_path / "new",
        parents.image_of(tree),
        epoch=EPOCH,
        compression="gzip",
        trust_checksum_xattrs=False,
    )
    parent = {"parent": {"image": str(below)}}
    direct = parents.built(
        tmp_path / "direct",
        {**parents.image_of(tree), **parent},
        epoch=EPOCH,
        trust_checksum_xattrs=False,
    )
    found = parents.built(tmp_path / "found", {**of_image(new), **parent}, epoch=EPOCH)
    assert diff_ids(found) == diff_ids(direct)


@pytest.mark.parametrize("codec", ["zstd", "disabled"])
def test_split(tmp_path: Path, codec: str) -> None:
    """Divided anew, an image has the layers that its directory is divided into: data bases of
    packages are read from the archives too.
    """
    tree = tmp_path / "tree"
    database = tree / "var" / "lib" / "dpkg"
    (database / "info").mkdir(parents=True)
    packages = {"one": ["usr/bin/one", "usr/share/one"], "two": ["usr/bin/two"]}
    status = ""
    for name, paths in packages.items():
        for path in paths:
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(name.encode() * 1000)
        (database / "info" / f"{name}.list").write_text("".join(f"/{path}\n" for path in paths))
        status += (
            f"Package: {name}\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\n\n"
        )
    (database / "status").write_text(status)
    below = parents.built(
        tmp_path / "below", parents.image_of(tree), epoch=EPOCH, compression=codec
    )
    split = {"split": {"components": ["packages"], "unclaimed": "ignore"}}
    direct = parents.built(tmp_path / "direct", {**parents.image_of(tree), **split}, epoch=EPOCH)
    again = parents.built(tmp_path / "again", {**of_image(below), **split}, epoch=EPOCH)
    assert diff_ids(again) == diff_ids(direct)
    assert len(diff_ids(again)) > 2


@pytest.mark.parametrize("compression", ["zstd", "disabled"])
def test_attributes_say_who_owns_an_entry(compression: str, tmp_path: Path) -> None:
    """contract: split-instructions. As in a directory: for all below one, with hard links, never
    written; without the source `xattr` they are attributes like others.
    """
    tree = tmp_path / "tree"
    for name in ("usr/bin/a", "usr/bin/b", "usr/share/a", "etc/a"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    os.link(tree / "usr/bin/a", tree / "usr/share/linked")
    try:
        os.setxattr(tree / "usr", "user.component", b"system")
        os.setxattr(tree / "usr/share", "user.component", b"data")
        os.setxattr(tree / "usr/bin/b", "user.component", b"tool")
    except OSError:
        pytest.skip("the file system has no user attributes")
    os.setxattr(tree / "usr/bin/b", "user.update-interval", b"monthly")
    os.setxattr(tree / "usr/bin/b", "user.other", b"stays\0\xff")
    os.setxattr(tree / "etc/a", "user.other", b"stays")
    below = parents.built(
        tmp_path / "below", parents.image_of(tree), epoch=EPOCH, compression=compression
    )
    for components, instructed in ((["xattr"], True), (["paths"], False)):
        source: Any = components if instructed else [{"paths": {"system": ["usr"]}}]
        split = {"split": {"components": source, "unclaimed": "ignore"}}
        direct = parents.built(
            tmp_path / f"direct-{instructed}", {**parents.image_of(tree), **split}, epoch=EPOCH
        )
        again = parents.built(
            tmp_path / f"again-{instructed}", {**of_image(below), **split}, epoch=EPOCH
        )
        assert diff_ids(again) == diff_ids(direct)
        layers = b"".join(clients.layer_tars(again))
        assert (b"SCHILY.xattr.user.component" in layers) is not instructed
        assert layers.count(b"SCHILY.xattr.user.other=stays") == 2
        assert (len(diff_ids(again)) > 3) is instructed


def test_instructions_take_bounded_memory() -> None:
    """Every name of a file has its own copy of the attributes that stay."""
    file = pax(
        (b"SCHILY.xattr.user.component", b"c"), (b"SCHILY.xattr.user.z", bytes(100_000))
    ) + header(b"f")
    links = [header(b"%d" % number, b"1", link=b"f") for number in range(100)]
    reader = TarReader(whole=True)
    reader.feed(file + b"".join(links) + END)
    reader.finish()
    lower = Lower(memory_limit=1 << 30)
    lower.apply(reader)
    with Path(os.devnull).open("rb") as nothing:
        sources: Any = [(reader, nothing, 0, True)]
        ImageTree(lower, sources, memory_limit=1 << 20)
        with pytest.raises(ValueError, match="more attributes than there is memory for"):
            ImageTree(lower, sources, take_instructions=True, memory_limit=1 << 20)


def test_owner_and_config(tmp_path: Path) -> None:
    below = Layout(tmp_path / "below")
    below.index(
        image(
            below,
            [archive(("a", b"x"), ("d", None))],
            config=set_to("config", {"Cmd": ["a"], "User": "1"}),
        )
    )
    parents.built(
        tmp_path / "out",
        {**of_image(below.path, config="inherit"), "owner": "5:6", "config": {"User": None}},
    )
    assert {(node.uid, node.gid) for node in parents.model_of(tmp_path / "out").values()} == {
        (5, 6)
    }
    content = json.loads(
        clients.blob(tmp_path / "out", clients.manifest_of(tmp_path / "out")["config"]["digest"])
    )
    assert content["config"] == {"Cmd": ["a"]}
    parents.built(tmp_path / "plain", of_image(below.path))
    assert "config" not in json.loads(
        clients.blob(
            tmp_path / "plain", clients.manifest_of(tmp_path / "plain")["config"]["digest"]
        )
    )


def test_an_image_without_layers(tmp_path: Path) -> None:
    below = Layout(tmp_path / "below")
    below.index(image(below, []))
    parents.built(tmp_path / "out", of_image(below.path), epoch=0)
    assert (
        oracles.apply_layer(io.BytesIO(clients.layer_tars(tmp_path / "out")[0]), {})[b"."].mode
        == 0o755
    )


@pytest.mark.clients
@pytest.mark.parametrize("codec", ["gzip", "disabled"])
def test_umoci_unpacks_the_same(odd_tree: Path, tmp_path: Path, codec: str) -> None:
    """An image that umoci made of its own layer on top of ours, squashed: both unpack to one
    tree.
    """
    layout = parents.built(tmp_path / "layout", parents.image_of(odd_tree), compression=codec)
    umoci = clients.need("umoci")
    bundle = clients.umoci_unpack(layout, tmp_path / "bundle").parent
    root = bundle / "rootfs"
    (root / "new").mkdir(mode=0o711)
    (root / "new" / "file").write_bytes(b"new" * 1000)
    os.link(root / "new" / "file", root / "new" / "other")
    for name in sorted(os.listdir(os.fsencode(root)))[:4]:
        path = os.path.join(os.fsencode(root), name)
        shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
    expected = changed(oracles.tree_model(root), as_umoci_unpacks)
    clients.run(umoci, "repack", "--image", f"{layout}:latest", bundle)
    squashed = parents.built(tmp_path / "squashed", of_image(layout), compression=codec)
    assert len(clients.manifest_of(layout)["layers"]) == 2
    assert len(clients.manifest_of(squashed)["layers"]) == 1
    found = changed(
        oracles.tree_model(clients.umoci_unpack(squashed, tmp_path / "again")), as_umoci_unpacks
    )
    original = changed(
        oracles.tree_model(clients.umoci_unpack(layout, tmp_path / "once")), as_umoci_unpacks
    )
    assert oracles.compare(found, original) == []
    assert oracles.compare(found, expected, ignore=["mtime"]) == []


@pytest.mark.clients
def test_an_image_of_buildah(odd_tree: Path, tmp_path: Path) -> None:
    """Made by `buildah commit` from ours: what it mounts is what the squashed one unpacks to."""
    clients.need_root()
    layout = parents.built(tmp_path / "layout", parents.image_of(odd_tree), compression="gzip")
    env = {"BUILDAH_ISOLATION": "chroot", "TMPDIR": str(tmp_path)}
    program = clients.buildah(tmp_path)
    container = clients.run(*program, "from", f"oci:{layout}", env=env).strip()
    root = Path(clients.run(*program, "mount", container, env=env).strip())
    (root / "new").mkdir()
    (root / "new" / "file").write_bytes(b"new")
    os.chown(root / "new" / "file", 12, 13)
    for name in sorted(os.listdir(os.fsencode(root)))[:4]:
        path = os.path.join(os.fsencode(root), name)
        shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
    clients.run(*program, "commit", container, f"oci:{tmp_path / 'made'}:latest", env=env)
    clients.run(*program, "umount", container, env=env)
    clients.run(*program, "rm", container, env=env)
    clients.run(*program, "rmi", "--all", "--force", env=env)
    assert len(clients.manifest_of(tmp_path / "made")["layers"]) == 2
    squashed = parents.built(tmp_path / "squashed", of_image(tmp_path / "made"))
    with clients.buildah_mount(tmp_path / "made", tmp_path / "x") as mounted:
        expected = changed(oracles.tree_model(mounted), as_buildah_mounts)
    with clients.buildah_mount(squashed, tmp_path / "y") as mounted:
        assert_same_tree(mounted, expected, root_time=False)


AS_NOBODY = """
import os, sys
from build_oci.config.load import load_config
from build_oci.pipeline import build
config = load_config(sys.argv[1])
# This loads all modules, which nobody may be unable to read.
build(config, output=sys.argv[2], workers=2, epoch=int(sys.argv[4]))
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
build(config, output=sys.argv[3], workers=2, epoch=int(sys.argv[4]))
"""


def squashed_by_root_and_nobody(layout: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The image of LAYOUT squashed by this user, who is root, and by one without any rights."""
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    (folder := tmp_path / "of-nobody").mkdir()
    os.chown(folder, 65534, 65534)
    found = tmp_path / "by-root", folder / "by-nobody"
    config = json.dumps({"images": [of_image(layout)]})
    clients.run(sys.executable, "-P", "-c", AS_NOBODY, config, *found, str(EPOCH))
    assert (found[1] / "index.json").stat().st_uid == 65534
    return found


def test_an_ordinary_user_gets_the_same(odd_tree: Path, tmp_path: Path) -> None:
    """Devices, foreign owners, capabilities: nothing of it has to be put on a disk."""
    clients.need_root()
    layout = parents.built(tmp_path / "layout", parents.image_of(odd_tree))
    by_root, by_nobody = squashed_by_root_and_nobody(layout, tmp_path)
    assert diff_ids(by_nobody) == diff_ids(by_root)


SYMLINK = header(b"lib", b"2", link=b"usr/lib")
LIBARCHIVE = pax((b"LIBARCHIVE.xattr.user.a", b"Yg"))


@pytest.mark.parametrize(
    ("tars", "said"),
    [
        ([archive(("d", None), ("d/f", b"1"), ("d/.wh.f", b""))],
         "d/f: clients do not agree about what this name is"),
        ([LIBARCHIVE + header(b"f") + END],
         "f: clients do not agree about its extended attributes"),
        ([archive(("a", "b"), ("b", "a"))], "a hard link to a file that is not in the image"),
        ([archive(("d", None), ("a", "d"))], "a hard link to a file that is not in the image"),
        ([header(b"f", size=8**11 - 1) + b"x"], "truncated"),
        ([archive(("usr", None), ("usr/lib", None), end=False) + SYMLINK + END,
          archive(("lib/foo", b"B"))],
         "clients do not agree"),
        ([extended(b"1 a=b\n") + header() + END], "a pax record"),
    ],
)  # fmt: skip
def test_hostile_images_are_refused(tmp_path: Path, tars: list[bytes], said: str) -> None:
    below = Layout(tmp_path / "below")
    below.index(image(below, tars))
    with pytest.raises((TreeError, ParentError), match=said):
        parents.built(tmp_path / "out", of_image(below.path))
    assert not (tmp_path / "out").exists()


def test_a_directory_that_no_layer_describes(tmp_path: Path) -> None:
    """Root's, 0755; and one that a later layer does not name again keeps what is said of it
    below.
    """
    below = Layout(tmp_path / "below")
    tars = [archive(("kept", None), ("implied/f", b"1")), archive(("kept/g", b"2"))]
    below.index(image(below, tars))
    parents.built(tmp_path / "out", of_image(below.path), epoch=0)
    model = parents.model_of(tmp_path / "out")
    assert sorted(model) == [b".", b"implied", b"implied/f", b"kept", b"kept/g"]
    assert (model[b"implied"].mode, model[b"implied"].uid) == (0o755, 0)


def test_a_blob_that_is_changed_after_it_was_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive that is read in its place belongs to somebody else: what is packed is what was
    hashed, or nothing.
    """
    for size in (1000, 3 << 20):
        below = Layout(tmp_path / f"below-{size}")
        below.index(image(below, [archive(("f", b"a" * size))]))
        blob = max(
            (below.path / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size
        )
        plain = layers_module.Parents.read_archives

        def change(self: Any, *arguments: Any, blob: Path = blob, plain: Any = plain) -> Any:
            found = plain(self, *arguments)
            data = blob.read_bytes()
            with blob.open("r+b") as file:
                file.write(data.replace(b"aaaa", b"aaab", 1))
            return found

        with monkeypatch.context() as patch:
            patch.setattr(layers_module.Parents, "read_archives", change)
            with pytest.raises(TreeError, match="changed while it was being read"):
                parents.built(tmp_path / "out", of_image(below.path))


def test_many_members_take_bounded_memory() -> None:
    reader = TarReader()
    reader.feed(archive(*((f"{number:05}", b"") for number in range(9000))))
    reader.finish()
    lower = Lower(memory_limit=1 << 30)
    lower.apply(reader)
    with Path("/dev/null").open("rb") as nothing:
        assert len(ImageTree(lower, [(reader, nothing, 0, True)])) == 9001
        with pytest.raises(ValueError, match="more entries than there is memory for"):
            ImageTree(lower, [(reader, nothing, 0, True)], memory_limit=1 << 20)


def test_descriptors_are_closed(odd_tree: Path, tmp_path: Path) -> None:
    layout = parents.built(tmp_path / "layout", parents.image_of(odd_tree))
    before = len(os.listdir("/proc/self/fd"))
    build(
        load_config(json.dumps({"images": [of_image(layout)]})), output=tmp_path / "out", workers=2
    )
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"image": "x", "indx": 1}, "did you mean `index`"),
        ({"index": 1}, "the key `image` is missing"),
        (["x"], "must be a string"),
        ({"image": "nowhere"}, "nowhere"),
    ],
)
def test_wrong_configurations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layer: Any, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    document = {"images": [{"os": "linux", "architecture": "amd64", "layer": layer}]}
    with pytest.raises(BuildOciError) as caught:
        build(load_config(json.dumps(document)), output=tmp_path / "out", workers=1)
    assert said in "\n".join(caught.value.lines())
