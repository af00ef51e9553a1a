"""Foreign input that is small and would take much memory or time, or that is odd in a way that
clients accept.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import layouts
import pytest
import zstandard

from build_oci.codec import zstd
from build_oci.codec.table import decode
from build_oci.errors import ParentError
from build_oci.oci import untrusted
from build_oci.oci.documents import Platform
from build_oci.oci.manifest import read_manifest
from build_oci.oci.untrusted import Source, parse_document
from build_oci.work.budget import Budget

MIB = 1 << 20
AMD64 = Platform("amd64", "linux")
LAST_BLOCK = b"\x01\0\0"
HEADER = zstd.MAGIC + b"\0\x50"


@pytest.mark.parametrize("empty", [b"\0\0\0", b"\x02\0\0a"], ids=["raw", "run"])
def test_empty_blocks_take_no_memory(empty: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of nothing, of which a frame may hold any number, are not gathered."""
    frame = HEADER + empty * 400_000 + b"\x10\0\0ab" + empty * 3 + LAST_BLOCK
    seen = []
    plain_read = zstd._Frame.read

    def read(self: Any, size: int) -> bytes:
        seen.append(len(data := plain_read(self, size)))
        return data

    monkeypatch.setattr(zstd._Frame, "read", read)
    chunks = [frame[at : at + 70_001] for at in range(0, len(frame), 70_001)]
    assert b"".join(bytes(piece) for piece in decode("zstd", chunks)) == b"ab"
    assert max(seen) <= 70_001


def test_empty_blocks_between_others() -> None:
    plain = b"abc" * 1000
    frame = (
        HEADER
        + b"".join(b"\0\0\0" * count + b"\x18\0\0abc" for count in (0, 1, 2, 3, 5000, 1) * 100)
        + LAST_BLOCK
    )
    for size in (1000, 4096, 4097, len(frame)):
        found = b"".join(
            bytes(p)
            for p in decode("zstd", [frame[at : at + size] for at in range(0, len(frame), size)])
        )
        assert found == plain[: len(found)]
        assert len(found) == 600 * 3


def test_windows_come_from_a_budget() -> None:
    """Two readers of large windows take turns where the budget holds one; a small window is never
    counted.
    """
    large = zstd.MAGIC + b"\0" + bytes([26 - 10 << 3]) + b"\x51\0\0" + b"x" * 10
    budget = Budget(100 * MIB)
    first = decode("zstd", [large], budget)
    next(first)
    assert budget._held == 64 * MIB
    done = threading.Event()

    def second() -> None:
        assert b"".join(bytes(piece) for piece in decode("zstd", [large], budget)) == b"x" * 10
        done.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert not done.wait(0.2)
    assert list(first) == []
    thread.join(300)
    assert done.is_set()
    assert budget._held == 0
    small = decode("zstd", [zstandard.compress(b"y" * 10)], budget)
    next(small)
    assert budget._held == 0


@pytest.mark.parametrize("item", ["{}", '{"":{}}', "[]", "0"])
def test_documents_of_many_values(item: str) -> None:
    """A document within the limit of bytes may still hold more values than memory is promised
    for.
    """
    with pytest.raises(ParentError, match="too many values"):
        parse_document(
            f'{{"a":[{",".join([item] * (untrusted.MOST_VALUES + 1))}]}}'.encode(), "there"
        )


@pytest.mark.parametrize(
    "text", ['{"a":NaN}', '{"a":-Infinity}', r'{"a":"\ud800"}', r'{"\uDFFFx":1}', '{"a":"\udc80"}']
)
def test_documents_that_are_no_json(text: str) -> None:
    with pytest.raises(ParentError, match="no JSON document"):
        parse_document(text.encode("utf-8", "surrogatepass"), "there")


def test_documents_with_a_mark_and_pairs() -> None:
    assert parse_document(b'\xef\xbb\xbf{"a":"\\ud83d\\ude00"}', "there") == {"a": "\U0001f600"}


def test_large_documents_are_refused(tmp_path: Path) -> None:
    layout = layouts.Layout(tmp_path / "layout")
    layout.index(layouts.image(layout, [layouts.FIRST]))
    index = tmp_path / "layout" / "index.json"
    index.write_bytes(index.read_bytes() + b" " * untrusted.MOST_DOCUMENT)
    with pytest.raises(ParentError, match="too large for a document"):
        Source(tmp_path / "layout").index()


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        (None, [{"created_by": "unknown"}] * 2),
        ([], [{"created_by": "unknown"}] * 2),
        (
            [{"comment": "one"}, {"empty_layer": True}],
            [{"comment": "one"}, {"empty_layer": True}, {"created_by": "unknown"}],
        ),
        ([{"comment": "1"}, {"comment": "2"}], [{"comment": "1"}, {"comment": "2"}]),
        (
            [{"comment": "1"}] * 3,
            [{"comment": "1"}, {"comment": "1"}, {"comment": "1", "empty_layer": True}],
        ),
    ],
)
def test_history_has_an_entry_for_each_layer(tmp_path: Path, history: Any, expected: Any) -> None:
    """The history is optional; clients fail where it is there and incomplete."""
    layout = layouts.Layout(tmp_path / "layout")

    def change(config: dict[str, Any]) -> None:
        config["history"] = json.loads(json.dumps(history))

    layout.index(layouts.image(layout, [layouts.FIRST, layouts.SECOND], config=change))
    assert read_manifest(Source(layout.path), 0, AMD64).history == expected


def test_nested_index_without_platforms(tmp_path: Path) -> None:
    """What the descriptors do not tell, the configs of the images do."""
    layout = layouts.Layout(tmp_path / "layout")
    arm = layouts.image(layout, [layouts.FIRST], config=layouts.set_to("architecture", "arm64"))
    amd = layouts.image(layout, [layouts.SECOND])
    inner = [{key: value for key, value in one.items() if key != "platform"} for one in (arm, amd)]
    layout.index(
        layout.document(
            {"schemaVersion": 2, "mediaType": layouts.INDEX, "manifests": inner}, layouts.INDEX
        )
    )
    for architecture, archive in (("arm64", layouts.FIRST), ("amd64", layouts.SECOND)):
        assert read_manifest(Source(layout.path), 0, Platform(architecture, "linux")).layers[
            0
        ].size == len(archive)
    with pytest.raises(ParentError, match="linux/amd64, linux/arm64"):
        read_manifest(Source(layout.path), 0, Platform("s390x", "linux"))


def test_an_index_two_levels_down(tmp_path: Path) -> None:
    layout = layouts.Layout(tmp_path / "layout")
    arm = layouts.image(
        layout,
        [layouts.FIRST],
        config=layouts.set_to("architecture", "arm64"),
        descriptor=layouts.set_to("platform.architecture", "arm64"),
    )
    amd = layouts.image(layout, [layouts.SECOND])

    def index(*manifests: dict[str, Any]) -> dict[str, Any]:
        return layout.document(
            {"schemaVersion": 2, "mediaType": layouts.INDEX, "manifests": list(manifests)},
            layouts.INDEX,
        )

    layout.index(index(arm, index(arm, amd)))
    assert read_manifest(Source(layout.path), 0, AMD64).layers[0].size == len(layouts.SECOND)


def test_images_in_indexes_inside_of_others(tmp_path: Path) -> None:
    """An index inside of another is looked into where its descriptor tells no platform; an outer
    image comes before an inner one.
    """
    layout = layouts.Layout(tmp_path / "layout")
    kinds = (
        ("amd64", layouts.SECOND),
        ("arm64", layouts.FIRST),
        ("riscv64", layouts.SECOND),
        ("riscv64", layouts.FIRST),
    )
    amd, arm, outer, inner = (
        layouts.image(
            layout,
            [archive],
            config=layouts.set_to("architecture", name),
            descriptor=layouts.set_to("platform.architecture", name),
        )
        for name, archive in kinds
    )

    def index(*manifests: dict[str, Any], **more: Any) -> dict[str, Any]:
        return layout.document(
            {"schemaVersion": 2, "mediaType": layouts.INDEX, "manifests": list(manifests)},
            layouts.INDEX,
            **more,
        )

    closed = index(amd, platform={"os": "windows", "architecture": "amd64"})
    layout.index(index(closed, index(index(inner), arm), outer))
    for architecture, archive in (("arm64", layouts.FIRST), ("riscv64", layouts.SECOND)):
        assert read_manifest(Source(layout.path), 0, Platform(architecture, "linux")).layers[
            0
        ].size == len(archive)
    with pytest.raises(ParentError, match="only for: linux/arm64, linux/riscv64, windows/amd64"):
        read_manifest(Source(layout.path), 0, AMD64)


def test_indexes_without_end(tmp_path: Path) -> None:
    """However many there are, deep or wide, few are read; the same one is read once."""
    layout = layouts.Layout(tmp_path / "layout")

    def index(*manifests: dict[str, Any]) -> dict[str, Any]:
        return layout.document(
            {"schemaVersion": 2, "mediaType": layouts.INDEX, "manifests": list(manifests)},
            layouts.INDEX,
        )

    wide = deep = index(
        layouts.image(layout, [layouts.FIRST], descriptor=layouts.set_to("platform.os", "plan9"))
    )
    for _ in range(5):
        wide = index(*[wide] * 1000)
    for _ in range(9):
        deep = index(deep)
    many = index(
        *(
            layout.document({"manifests": [], "number": number}, layouts.INDEX)
            for number in range(200)
        )
    )
    layout.index(wide, deep, many)
    for number, what in enumerate(("only for: .*plan9/amd64", "8 deep", "more than 100 indexes")):
        with pytest.raises(ParentError, match=what):
            read_manifest(Source(layout.path), number, AMD64)
