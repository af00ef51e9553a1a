"""contract: compare-reports. What compare says of two images: every planted change is named, and
nothing else.
"""

from __future__ import annotations

import gzip
import json
import random
import tarfile
from pathlib import Path
from typing import Any

import clients
import layouts
import pytest
from comparisons import compared, document
from stacks import Member, differences, digest, directory, image, model, packed, random_stack, told

from build_oci.compare.report import compare_layouts
from build_oci.compare.text import Style, report_lines
from build_oci.errors import size_text

PLAIN = Style(80, colour=False)


def why(comparison: clients.Document) -> dict[int, Any]:
    return {
        layer["number"]: layer["why"] for layer in comparison["new"]["layers"] if "why" in layer
    }


BASE = [
    directory("etc"),
    Member("etc/passwd", content=b"root" * 100),
    Member("etc/group", content=b"root" * 50),
    Member("etc/hard", tarfile.LNKTYPE, target="etc/group"),
    Member("etc/link", tarfile.SYMTYPE, target="passwd", mode=0o777),
    Member("etc/null", tarfile.CHRTYPE, device=(1, 3)),
    Member("etc/fifo", tarfile.FIFOTYPE),
    directory("usr"),
    Member("usr/caps", content=b"elf", xattrs={"security.capability": "one"}),
]


def changed(name: str, **changes: Any) -> list[Member]:
    return [member.but(**changes) if member.name == name else member for member in BASE]


PLANTED: dict[str, tuple[list[Member], dict[str, list[str]]]] = {
    "added": ([*BASE, Member("usr/new", content=b"new")], {"usr/new": ["added"]}),
    "removed": (
        [member for member in BASE if member.name != "etc/fifo"],
        {"etc/fifo": ["removed"]},
    ),
    "content": (
        changed("etc/passwd", content=b"user" * 100),
        {"etc/passwd": ["changed", "content"]},
    ),
    "size": (changed("etc/passwd", content=b"user"), {"etc/passwd": ["changed", "content"]}),
    "content of a file with two names": (
        changed("etc/group", content=b"x"),
        {"etc/group": ["changed", "content"], "etc/hard": ["changed", "content"]},
    ),
    "mode": (changed("etc/passwd", mode=0o600), {"etc/passwd": ["changed", "mode"]}),
    "setuid": (changed("usr/caps", mode=0o4644), {"usr/caps": ["changed", "mode"]}),
    "user": (changed("etc/passwd", uid=1), {"etc/passwd": ["changed", "owner"]}),
    "group": (changed("etc/fifo", gid=1), {"etc/fifo": ["changed", "owner"]}),
    "time": (changed("usr", mtime=5), {"usr": ["changed", "time"]}),
    "xattr": (
        changed("usr/caps", xattrs={"security.capability": "two"}),
        {"usr/caps": ["changed", "xattr"]},
    ),
    "xattr gone": (changed("usr/caps", xattrs={}), {"usr/caps": ["changed", "xattr"]}),
    "target": (changed("etc/link", target="group"), {"etc/link": ["changed", "link target"]}),
    "device": (changed("etc/null", device=(1, 5)), {"etc/null": ["changed", "device number"]}),
    "type": (changed("etc/fifo", kind=tarfile.REGTYPE), {"etc/fifo": ["changed", "type"]}),
    "link to another": (
        changed("etc/hard", target="etc/passwd"),
        {"etc/hard": ["changed", "content", "hard link"]},
    ),
    "link no more": (
        changed("etc/hard", kind=tarfile.REGTYPE, content=b"root" * 50, target=""),
        {"etc/hard": ["changed", "hard link"]},
    ),
    "several": (
        changed("etc/passwd", mode=0o600, uid=2, content=b"user"),
        {"etc/passwd": ["changed", "content", "mode", "owner"]},
    ),
}


@pytest.mark.platform
@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_change_is_named_and_nothing_else(kind: str, tmp_path: Path) -> None:
    members, expected = PLANTED[kind]
    old, new = image(tmp_path / "old", [BASE]), image(tmp_path / "new", [members])
    found = compared(old, new)
    assert told(found) == expected
    assert found["complete"]
    assert not found["equal"]
    (reason,) = why(found).values()
    assert reason["kind"] == "entries"
    assert {
        entry["path"]: [entry["what"], *entry["differs"]] for entry in reason["entries"]
    } == expected
    metadata = {"mode", "owner", "time", "xattr", "hard link"}
    assert reason["metadataOnly"] == all(
        what[0] == "changed" and set(what[1:]) <= metadata for what in expected.values()
    )
    # The other way round, what was added is removed.
    reverse = {
        path: [{"added": "removed", "removed": "added"}.get(word, word) for word in words]
        for path, words in expected.items()
    }
    assert told(compared(new, old)) == reverse


@pytest.mark.platform
@pytest.mark.parametrize("seed", range(40))
def test_stacks_differ_in_what_clients_unpack(seed: int, tmp_path: Path) -> None:
    """Whiteouts, opaque directories and changes of type, against plain Python that applies layer
    after layer.
    """
    rng = random.Random(seed)
    old, new = random_stack(rng, rng.randrange(1, 5)), random_stack(rng, rng.randrange(1, 5))
    try:
        expected = differences(model(old), model(new))
    except KeyError:
        pytest.skip("a layer lacks a directory")
    if old == new:
        pytest.skip("the same")
    found = told(compared(image(tmp_path / "old", old), image(tmp_path / "new", new), deep=True))
    assert {path: words for path, words in found.items() if path} == {
        path: words for path, words in expected.items() if path != "."
    }


# ---- layers


def test_the_same_archive_compressed_otherwise(tmp_path: Path) -> None:
    """It is not read at all: its blob may be damaged."""
    archive = packed(BASE)

    def compress(manifest: clients.Document) -> None:
        manifest["layers"] = [layout.blob(gzip.compress(archive, mtime=0), layouts.LAYER + "+gzip")]

    old = image(tmp_path / "old", [archive])
    layout = layouts.Layout(tmp_path / "new")
    new = layout.index(layouts.image(layout, [archive], manifest=compress))
    found = compared(old, new)
    assert why(found)[0]["kind"] == "recompressed"
    assert told(found) == {}
    assert found["download"]["layers"] == len(gzip.compress(archive, mtime=0))
    blob = new / "blobs" / clients.manifest_of(new)["layers"][0]["digest"].replace(":", "/")
    blob.write_bytes(b"damaged")
    assert why(compared(old, new))[0]["kind"] == "recompressed"


def test_order_and_headers(tmp_path: Path) -> None:
    members = [directory("etc"), *(Member(f"etc/{name}", content=name.encode()) for name in "abc")]
    old = image(tmp_path / "old", [members])
    order = compared(old, image(tmp_path / "order", [[members[0], *reversed(members[1:])]]))
    headers = compared(old, image(tmp_path / "headers", [packed(members, form=tarfile.GNU_FORMAT)]))
    assert (why(order)[0]["kind"], why(headers)[0]["kind"]) == ("order", "headers")
    assert told(order) == told(headers) == {}


def test_a_shared_layer_is_read_only_when_asked(tmp_path: Path) -> None:
    shared = [directory("etc"), Member("etc/a", content=b"a"), Member("etc/b", content=b"b")]
    old = image(
        tmp_path / "old",
        [shared, [directory("etc"), Member("etc/b", content=b"2"), Member("etc/c")]],
    )
    new = image(
        tmp_path / "new",
        [shared, [directory("etc"), Member("etc/.wh.a"), Member("etc/c", mode=0o600)]],
    )
    found = compared(old, new)
    assert [layer["shared"] for layer in found["new"]["layers"]] == [True, False]
    assert not found["complete"]
    assert told(found) == {"etc/a": ["removed"], "etc/b": ["removed"], "etc/c": ["changed", "mode"]}
    deep = compared(old, new, deep=True)
    assert deep["complete"]
    assert told(deep) == {
        "etc/a": ["removed"],
        "etc/b": ["changed", "content"],
        "etc/c": ["changed", "mode"],
    }
    for layout in (old, new):
        (layout / "blobs" / digest(packed(shared)).replace(":", "/")).unlink()
    assert told(compared(old, new)) == told(found)


def test_hard_links_into_a_layer_that_is_not_read(tmp_path: Path) -> None:
    shared = [Member("a", content=b"a")]
    link = Member("b", tarfile.LNKTYPE, target="a")
    old = image(tmp_path / "old", [shared, [link, Member("c", content=b"1")]])
    new = image(tmp_path / "new", [shared, [link, Member("c", content=b"2")]])
    assert told(compared(old, new)) == {"c": ["changed", "content"]}


def test_directories_that_no_layer_names(tmp_path: Path) -> None:
    """Some builders leave them out, and that is no difference."""
    old = image(
        tmp_path / "old",
        [[directory("usr"), directory("usr/bin"), Member("usr/bin/sh", content=b"1")]],
    )
    new = image(tmp_path / "new", [[Member("usr/bin/sh", content=b"2")]])
    assert (
        told(compared(old, new))
        == told(compared(new, old))
        == {"usr/bin/sh": ["changed", "content"]}
    )


def test_one_directory_time_in_every_layer_is_the_cause(tmp_path: Path) -> None:
    def stack(mtime: int) -> list[list[Member]]:
        usr = directory("usr").but(mtime=mtime)
        return [
            [usr, Member(f"usr/{number}", content=bytes([number]) * 500)] for number in range(100)
        ]

    found = compared(image(tmp_path / "old", stack(1)), image(tmp_path / "new", stack(2)))
    assert [(cause["path"], cause["differs"], cause["layers"]) for cause in found["causes"]] == [
        ("usr", ["time"], 100)
    ]
    assert found["causes"][0]["size"] == found["download"]["layers"]
    assert all(reason["text"] == "only the time of usr" for reason in why(found).values())


def test_a_file_that_goes_to_another_layer(tmp_path: Path) -> None:
    a, b, c = (
        Member(name, content=name.encode() * 2000 * number) for number, name in enumerate("abc", 1)
    )
    old = image(tmp_path / "old", [[a, b], [c]])
    new = image(tmp_path / "new", [[a], [b, c]])
    found = compared(old, new)
    assert told(found) == {}
    counts = {
        number: {(one["what"], one["entries"]) for one in reason["counts"]}
        for number, reason in why(found).items()
    }
    assert counts == {0: {("moved-out", 1)}, 1: {("moved-in", 1)}}


def test_a_directory_that_comes_along_is_no_reason(tmp_path: Path) -> None:
    usr, var = directory("usr"), directory("var")
    a, b = (Member(f"usr/{name}", content=name.encode() * 2000) for name in "ab")
    old = image(tmp_path / "old", [[usr, a], [var]])
    new = image(tmp_path / "new", [[usr, a], [usr, var, b]])
    reason = why(compared(old, new, deep=True))[1]
    assert [(one["what"], one["entries"]) for one in reason["counts"]] == [("added", 1)]
    # With nothing else it is the reason.
    alone = image(tmp_path / "alone", [[usr, a], [usr, var]])
    counts = why(compared(old, alone, deep=True))[1]["counts"]
    assert {one["what"] for one in counts} <= {"moved-in", "moved-out"}
    assert counts


def test_what_is_as_before_beside_a_change(tmp_path: Path) -> None:
    draw = random.Random(1)
    large = Member("large", content=draw.randbytes(200_000))
    layers = [[large, Member("small", content=draw.randbytes(10_000))] for _ in range(2)]
    old, new = (image(tmp_path / name, [layer]) for name, layer in zip("ab", layers, strict=True))
    unchanged = why(compared(old, new))[0]["unchangedSize"]
    assert unchanged == pytest.approx(201_000, rel=0.03)  # with the end of the archive
    lines = list(report_lines(compare_layouts(str(old), str(new), workers=1), PLAIN))
    assert f"{'':16}1 content; {size_text(unchanged)} of it as before" in lines
    assert f"{'':12}about {size_text(unchanged)} in the new ones is as before" in lines
    whole = image(tmp_path / "whole", [[large], layers[1][1:]])
    assert why(compared(old, whole))[1]["unchangedSize"] < 10_000


def test_the_components_of_layers(tmp_path: Path) -> None:
    def annotate(manifest: clients.Document) -> None:
        for number, layer in enumerate(manifest["layers"]):
            rows = [
                [name, 7, 1, 0, layer["digest"][7:15]]
                for name in (["bash", "zlib"] if number else ["kernel"])
            ]
            text = json.dumps({"layer": number, "of": len(manifest["layers"]), "components": rows})
            layer["annotations"] = {"io.build-oci.components": text}

    stack = [[Member("vmlinuz", content=b"1" * 9000)], [Member("bash", content=b"2" * 3000)]]
    later = [[Member("vmlinuz", content=b"3" * 9000)], stack[1]]
    found = compared(
        image(tmp_path / "old", stack, manifest=annotate),
        image(tmp_path / "new", later, manifest=annotate),
    )
    assert [(one["name"], one["changed"]["count"]) for one in found["components"]] == [
        ("kernel", 1)
    ]
    assert found["changedComponents"] == {"added": [], "removed": [], "changed": ["kernel"]}
    assert [layer["components"] for layer in found["new"]["layers"]] == [
        ["kernel"],
        ["bash", "zlib"],
    ]


def test_what_nobody_claims_is_told(tmp_path: Path) -> None:
    def annotate(manifest: clients.Document) -> None:
        for number, (layer, name) in enumerate(
            zip(manifest["layers"], ("bash", "unclaimed:usr/share"), strict=True)
        ):
            rows = [[name, 7, 1, 0, ""]]
            layer["annotations"] = {
                "io.build-oci.components": json.dumps(
                    {"layer": number, "of": 2, "components": rows}
                )
            }

    stack = [[Member("bash", content=b"1" * 9000)], [Member("share", content=b"2" * 30000)]]
    new = image(tmp_path / "new", stack, manifest=annotate)
    report = compare_layouts(str(image(tmp_path / "old", [[Member("a")]])), str(new), workers=1)
    size = len(packed(stack[1]))
    assert f"  Unclaimed {size / 1000:.1f} kB in layers" in "\n".join(
        report_lines(report, Style(80, colour=False))
    )


# ---- documents and bytes


def test_config_and_annotations(tmp_path: Path) -> None:
    def with_config(**config: Any) -> Any:
        return layouts.set_to("config", config)

    def annotated(value: str) -> Any:
        return layouts.set_to("annotations", {"kept": "1", "org.version": value})

    old = image(
        tmp_path / "old",
        [BASE],
        config=with_config(Env=["A=1", "B=2"], Labels={"x": "1", "y": "2"}, User="0"),
        manifest=annotated("1"),
    )
    new = image(
        tmp_path / "new",
        [BASE],
        config=with_config(Env=["B=2", "A=3"], Labels={"x": "1"}, Cmd=["sh"], User="0"),
        manifest=annotated("2"),
    )
    found = compared(old, new)
    assert [(field["key"], field["old"], field["new"]) for field in found["config"]] == [
        ("config.Cmd", None, ["sh"]),
        ("config.Env.A", "1", "3"),
        ("config.Labels.y", "2", None),
    ]
    assert found["annotations"] == [
        {"where": "manifest", "key": "org.version", "old": "1", "new": "2"}
    ]
    assert told(found) == {}
    assert not found["equal"]
    manifest = clients.index_of(new)["manifests"][0]["size"]
    assert found["download"] == {
        "size": manifest + clients.manifest_of(new)["config"]["size"],
        "layers": 0,
        "config": clients.manifest_of(new)["config"]["size"],
        "manifest": manifest,
        "partialSize": None,
    }


def test_a_blob_that_is_twice_in_an_image_is_downloaded_once(tmp_path: Path) -> None:
    layer = [Member("a", content=b"a" * 3000)]
    found = compared(
        image(tmp_path / "old", [[Member("b")]]), image(tmp_path / "new", [layer, layer])
    )
    assert found["download"]["layers"] == len(packed(layer))


def test_images_are_paired_by_platform(tmp_path: Path) -> None:
    def several(path: Path, contents: dict[str, bytes]) -> Path:
        layout = layouts.Layout(path)
        found = []
        for architecture, content in contents.items():
            set_to = layouts.set_to("architecture", architecture)
            found.append(
                layouts.image(
                    layout, [packed([Member(architecture, content=content)])], config=set_to
                )
            )
        return layout.index(*found)

    old = several(tmp_path / "old", {"arm64": b"1", "amd64": b"1", "s390x": b"1"})
    new = several(tmp_path / "new", {"amd64": b"1", "arm64": b"2", "riscv64": b"1"})
    found = document(old, new)
    assert [(one["new"]["platform"], one["equal"]) for one in found["images"]] == [
        ("linux/amd64", True),
        ("linux/arm64", False),
    ]
    assert [[one["platform"] for one in found[key]] for key in ("onlyOld", "onlyNew")] == [
        ["linux/s390x"],
        ["linux/riscv64"],
    ]
    assert compared(f"{old}@0", f"{new}@1")["new"]["platform"] == "linux/arm64"
