"""`layers`: directories that are added and images whose layers are carried, on top of each other
(contract: late-edits).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import tarfile
from pathlib import Path
from typing import Any

import clients
import oracles
import parents
import pytest
import trees
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from layouts import Layout, archive, image
from test_clients import as_umoci_unpacks, changed

from build_oci.config.load import load_config
from build_oci.errors import BuildOciError
from build_oci.pipeline import build

EPOCH = parents.EPOCH
COMPRESSIONS = parents.COMPRESSIONS


def stack(*items: clients.Document, **more: Any) -> clients.Document:
    named = {"index-annotations": {"org.opencontainers.image.ref.name": "latest"}}
    return {"os": "linux", "architecture": "amd64", "layers": list(items), **named, **more}


def layout_of(path: Path, *tars: bytes) -> Path:
    below = Layout(path)
    return below.index(image(below, list(tars)))


def warnings_of(output: Path, *images: clients.Document) -> list[str]:
    found: list[str] = []
    build(
        load_config(json.dumps({"images": list(images)})),
        output=output,
        workers=2,
        epoch=0,
        warn=found.append,
    )
    return found


def added(below: oracles.Model, above: oracles.Model, removed: list[bytes]) -> oracles.Model:
    """What BELOW is once ABOVE has been added and REMOVED been taken away: slow and plain."""
    found = dict(below)
    for path in removed:
        oracles.remove(found, path)
    names: dict[int, list[bytes]] = {}
    for path, node in above.items():
        names.setdefault(id(node), []).append(path)
    for paths in names.values():
        node, olds = above[paths[0]], [found.get(path) for path in paths]
        old = olds[0]
        stays = (
            old is not None
            and all(other is old for other in olds)
            and (old.type == tarfile.DIRTYPE or _same(old, node))
        )
        if not stays:  # else its other names stay with it
            found.update(dict.fromkeys(paths, node))
    return found


def _same(old: oracles.Node, new: oracles.Node) -> bool:
    ours, theirs = divmod(old.mtime, oracles.SECOND), divmod(new.mtime, oracles.SECOND)
    if ours[0] != theirs[0] or (ours[1] and theirs[1] and ours[1] != theirs[1]):
        return False
    return oracles.compare({b"": old}, {b"": new}, ignore=["mtime"]) == []


def without_conflicts(names: parents.Names, below: parents.Names) -> parents.Names:
    """NAMES without what is a directory there and none here, or the other way round, and what is
    below that.
    """
    kept: parents.Names = {}
    for path in sorted(names, key=lambda path: [] if path == b"." else path.split(b"/")):
        upper = path.rpartition(b"/")[0] or b"."
        old = below.get(path)
        differs = old is not None and (old.type == stat.S_IFDIR) is not (
            names[path].type == stat.S_IFDIR
        )
        if path == b"." or (upper in kept and not differs):
            kept[path] = names[path]
    return kept


@pytest.mark.platform
@settings(max_examples=25, phases=[Phase.explicit, Phase.generate])  # shrinking would take minutes
@given(
    items=trees.trees(whiteout_names=False),
    rng=st.randoms(use_true_random=False),
    times=st.integers(0, 12),
    epochs=st.sampled_from([(None, None), (EPOCH, EPOCH), (None, EPOCH), (EPOCH, EPOCH + 5)]),
    codec=st.sampled_from(COMPRESSIONS),
)
def test_added_and_removed(
    tmp_path_factory: pytest.TempPathFactory,
    items: list[trees.Item],
    rng: random.Random,
    times: int,
    epochs: tuple[int | None, int | None],
    codec: str,
) -> None:
    scratch = tmp_path_factory.mktemp("stack")
    names = parents.names_of(items)
    first = parents.on_disk(names, scratch / "first")
    below = parents.built(
        scratch / "below",
        parents.image_of(first),
        epoch=epochs[0],
        compression=codec,
        trust_checksum_xattrs=False,
    )
    others = parents.names_of(parents.items_of(names))
    parents.change(rng, others, times)
    for path in [path for path in sorted(others) if path != b"." and rng.random() < 0.3]:
        for name in [name for name in others if name == path or name.startswith(path + b"/")]:
            del others[name]
    others = without_conflicts(others, names)
    second = parents.on_disk(others, scratch / "second")
    gone = [
        path
        for path in sorted(parents.model_of(below))
        if path != b"." and rng.random() < 0.1 and _is_text(path)
    ]
    gone = [path for path in gone if not any(path.startswith(other + b"/") for other in gone)]
    item = {"add": str(second)} | ({"remove": [os.fsdecode(path) for path in gone]} if gone else {})
    above = parents.built(
        scratch / "above",
        stack(item, parent={"image": str(below)}),
        epoch=epochs[1],
        compression=codec,
        trust_checksum_xattrs=False,
    )
    expected = added(parents.model_of(below), parents.expected_model(second, epoch=epochs[1]), gone)
    parents.assert_is(parents.model_of(above), expected)
    tars = clients.layer_tars(above)
    assert tars[:-1] == clients.layer_tars(below)
    emitted = parents.names_in(tars[-1])
    there = {name for name, item in names.items() if item.type == stat.S_IFDIR} - {b"."}
    there = {
        name
        for name in there
        if not any(name == other or name.startswith(other + b"/") for other in gone)
    }
    for name in there:  # a directory that is there already comes only for what is in it
        below_it = os.fsdecode(name) + "/"
        assert os.fsdecode(name) not in emitted or any(
            other.startswith(below_it) for other in emitted
        )
    shutil.rmtree(scratch)


def _is_text(path: bytes) -> bool:
    try:
        return path.decode().isprintable()
    except UnicodeDecodeError:
        return False


def test_only_what_is_new_is_in_the_layer(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "etc" / "same").mkdir(parents=True)
    (tree / "etc" / "a").write_text("a")
    (tree / "etc" / "same" / "b").write_text("b")
    below = parents.built(tmp_path / "below", parents.image_of(tree))
    (tree / "etc" / "a").write_text("changed")
    os.utime(tree / "etc", (5, 5))
    above = parents.built(
        tmp_path / "above", stack({"add": str(tree)}, parent={"image": str(below)})
    )
    assert parents.top_layer(above) == [".", "etc", "etc/a"]
    assert parents.model_of(above)[b"etc"].mtime == parents.model_of(below)[b"etc"].mtime


def test_removed_only(tmp_path: Path) -> None:
    below = layout_of(
        tmp_path / "below",
        archive(("a", None), ("a/b", b"x"), ("a/c", b"y"), ("d", None), ("d/e", b"z")),
    )
    above = parents.built(
        tmp_path / "above",
        stack({"remove": ["/a/b", "d", "a//./b"]}, parent={"image": str(below)}),
        epoch=0,
    )
    assert parents.top_layer(above) == [".", "./.wh.d", "a", "a/.wh.b"]
    assert sorted(parents.model_of(above)) == [b".", b"a", b"a/c"]


def test_a_removed_directory_is_replaced_wholly(tmp_path: Path) -> None:
    below = layout_of(
        tmp_path / "below",
        archive(("a", None), ("a/b", b"x"), ("a/k", None), ("a/k/l", b""), ("lib", b"")),
    )
    tree = tmp_path / "tree"
    (tree / "a" / "n").mkdir(parents=True)
    (tree / "lib").mkdir()
    above = parents.built(
        tmp_path / "above",
        stack({"add": str(tree), "remove": ["a", "lib"]}, parent={"image": str(below)}),
        epoch=0,
    )
    assert sorted(parents.model_of(above)) == [b".", b"a", b"a/n", b"lib"]
    assert parents.top_layer(above) == [".", "a", "a/.wh.b", "a/.wh.k", "a/n", "lib"]


def test_a_name_removed_and_added_again_keeps_its_links(tmp_path: Path) -> None:
    """Three names of one file stay names of one file where one of them was removed before, and a
    fourth name goes.
    """
    first, second = tmp_path / "first", tmp_path / "second"
    for root, names in ((first, "abcd"), (second, "abc")):
        root.mkdir()
        (root / "a").write_bytes(b"content")
        for name in names[1:]:
            os.link(root / "a", root / name)
        os.utime(root / "a", (EPOCH, EPOCH))
    below = parents.built(tmp_path / "below", parents.image_of(first))
    item = {"add": str(second), "remove": ["a", "d"]}
    above = parents.built(tmp_path / "above", stack(item, parent={"image": str(below)}))
    found = parents.model_of(above)
    assert sorted(found) == [b".", b"a", b"b", b"c"]
    assert found[b"a"] is found[b"b"] is found[b"c"]


@pytest.mark.parametrize("codec", COMPRESSIONS)
def test_composed(tmp_path: Path, codec: str) -> None:
    """Parts that were built apart, a directory between them: what the merged directory would be;
    and layers are carried as they are.
    """
    whole = tmp_path / "whole"
    whole.mkdir()
    parts = []
    for number in range(3):
        tree = tmp_path / f"tree-{number}"
        tree.mkdir()
        for root in (tree, whole):
            (root / "usr" / f"part-{number}").mkdir(parents=True, exist_ok=True)
            (root / "usr" / f"part-{number}" / "file").write_bytes(bytes([number]) * 3000)
        if number != 1:
            parts.append(
                {
                    "image": str(
                        parents.built(
                            tmp_path / f"part-{number}",
                            parents.image_of(tree),
                            epoch=EPOCH,
                            compression=codec,
                        )
                    )
                }
            )
    added_ = {"add": str(tmp_path / "tree-1")}
    assert not (found := warnings_of(tmp_path / "x", stack(parts[0], parts[1]))), found
    out = parents.built(
        tmp_path / "out", stack(parts[0], added_, parts[1]), epoch=EPOCH, compression=codec
    )
    assert oracles.compare(parents.model_of(out), parents.expected_model(whole, epoch=EPOCH)) == []
    assert len(clients.manifest_of(out)["layers"]) == 3
    for number, part in ((0, parts[0]), (2, parts[1])):
        (layer,) = clients.manifest_of(Path(part["image"]))["layers"]
        assert clients.manifest_of(out)["layers"][number] == layer
    content = json.loads(clients.blob(out, clients.manifest_of(out)["config"]["digest"]))
    assert [entry.get("empty_layer", False) for entry in content["history"]] == [False] * 3


def test_something_added_on_top_of_what_was_added(tmp_path: Path) -> None:
    """The second of two additions leaves out what the first one brought."""
    for name, content in (("one", "1"), ("two", "2")):
        (tmp_path / name / "etc").mkdir(parents=True)
        (tmp_path / name / "etc" / "both").write_text("both")
        (tmp_path / name / "etc" / name).write_text(content)
    out = parents.built(
        tmp_path / "out",
        stack({"add": str(tmp_path / "one")}, {"add": str(tmp_path / "two")}),
        epoch=EPOCH,
    )
    assert [parents.names_in(tar) for tar in clients.layer_tars(out)] == [
        [".", "etc", "etc/both", "etc/one"],
        [".", "etc", "etc/two"],
    ]


def test_names_that_two_parts_claim_are_told(tmp_path: Path) -> None:
    one = layout_of(
        tmp_path / "one", archive(("etc", None), ("etc/a", b"1"), ("etc/b", b"1"), ("x", b""))
    )
    two = layout_of(
        tmp_path / "two",
        archive(("etc", None), ("etc/b", b"1"), ("etc/c", b""), ("x", None), ("x/y", b"")),
    )
    assert warnings_of(tmp_path / "out", stack({"image": str(one)}, {"image": str(two)})) == [
        f"{two}: 2 names of it hide what {one} has: /etc/b, /x"
    ]
    assert (
        warnings_of(tmp_path / "o2", stack({"image": str(two)}, parent={"image": str(one)})) == []
    )


def test_labels_after_the_fact_read_no_archive(tmp_path: Path) -> None:
    """Nothing is compared, so blobs are hashed and nothing else: this one is no archive at all."""
    import hashlib

    below = Layout(tmp_path / "below")
    no_archive = b"\x01" * 5000
    below.index(image(below, [no_archive]))
    out = parents.built(
        tmp_path / "out",
        {
            "os": "linux",
            "architecture": "amd64",
            "parent": {"image": str(below.path)},
            "config": {"Labels": {"a": "b"}},
        },
        compression="disabled",
    )
    (layer,) = clients.manifest_of(out)["layers"]
    assert layer["digest"] == f"sha256:{hashlib.sha256(no_archive).hexdigest()}"


def test_many_adds_without_anything_below_keep_the_root(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir(mode=0o711)
    out = parents.built(tmp_path / "out", stack({"add": str(tmp_path / "tree")}), epoch=0)
    assert parents.model_of(out)[b"."].mode == 0o711


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"remove": ["usr/none"]}, "`/usr/none` is not there to be removed"),
        ({"remove": ["lib/f"]}, "`/lib/f` is not there to be removed"),
        ({"remove": ["/"]}, "no path below the root"),
        ({"remove": ["a/../b"]}, "no path below the root"),
        ({"add": "tree", "image": "below"}, "has both `image` and `add`"),
        ({}, "has neither"),
        (
            {"add": "tree"},
            "is a directory in the image below and none here, or the other way round",
        ),
        (
            {"add": "covers"},
            "is a directory in the image below and none here, or the other way round",
        ),
        ({"add": "nowhere"}, "cannot use the directory `nowhere`"),
        ({"image": "nowhere"}, "cannot use the directory `nowhere`"),
        ({"ad": "tree"}, "did you mean `add`"),
    ],
)
def test_what_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, item: clients.Document, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tree" / "lib").mkdir(parents=True)
    (tmp_path / "tree" / "lib" / "f").write_text("f")
    (tmp_path / "covers").mkdir()
    (tmp_path / "covers" / "usr").write_text("f")
    from archives import END
    from test_image_tree import SYMLINK

    layout_of(tmp_path / "below", archive(("usr", None), ("usr/f", b""), end=False) + SYMLINK + END)
    with pytest.raises(BuildOciError) as caught:
        parents.built(Path("out"), stack(item, parent={"image": "below"}))
    assert said in "\n".join(caught.value.lines())
    assert not Path("out").exists()


def test_layer_and_layers_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(BuildOciError, match="cannot stand beside `layers`"):
        load_config(json.dumps({"images": [stack(layer="x")]}))


@pytest.mark.clients
@pytest.mark.parametrize("epoch", [None, EPOCH])
def test_umoci_unpacks_what_was_added(odd_tree: Path, tmp_path: Path, epoch: int | None) -> None:
    """Directories that are there keep their metadata, times included, whatever SOURCE_DATE_EPOCH
    says.
    """
    below = parents.built(
        tmp_path / "below",
        parents.image_of(odd_tree),
        compression="gzip",
        trust_checksum_xattrs=False,
    )
    tree = tmp_path / "tree"
    names = parents.names_of(trees.random_tree(random.Random(4), 300, large=2))
    changes = {path: item for path, item in names.items() if item.type == stat.S_IFDIR}
    for path in sorted(changes)[:40]:
        changes[path + b"/new"] = (
            trees.Item(path + b"/new", stat.S_IFREG, size=10)
            if path != b"."
            else trees.Item(b"new", stat.S_IFREG)
        )
        changes[path].mtime += 10**9
        changes[path].mode ^= 0o20
    changes = {path: item for path, item in changes.items() if not path.startswith(b"./")}
    parents.on_disk(changes, tree)
    above = parents.built(
        tmp_path / "above",
        stack({"add": str(tree)}, parent={"image": str(below)}),
        compression="gzip",
        epoch=epoch,
    )
    before = changed(
        oracles.tree_model(clients.umoci_unpack(below, tmp_path / "one")), as_umoci_unpacks
    )
    after = changed(
        oracles.tree_model(clients.umoci_unpack(above, tmp_path / "two")), as_umoci_unpacks
    )
    assert after.keys() - before.keys()
    for path in before.keys() & after.keys():
        assert oracles.compare({path: before[path]}, {path: after[path]}, ignore=["links"]) == []
