"""Maps of components (contract: split-components): every form, whole and broken."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies
from split_trees import (
    TREE,
    DictTree,
    error_of,
    files_of,
    intervals_of,
    owners_of,
    split_config,
    written,
)

from build_oci.errors import UsageError
from build_oci.split.components import find_owners
from build_oci.split.sources import map_file

__all__ = ["written"]

MAPS: dict[str, Any] = {
    "components": {
        "libc": {"files": ["/lib/libc.so", "etc/passwd"], "interval": "monthly"},
        "ls": {"files": ["/usr/bin/ls"]},
    },
    "entries": {
        "schema": 3,
        "made-by": {"path": 1, "x": [2]},
        "entries": [
            {"path": "/lib/libc.so", "component": "libc", "interval": "monthly", "mode": 3},
            {"path": "./etc//passwd", "component": "libc"},
            {"path": "/usr/bin/ls", "component": "ls", "interval": 7},
        ],
    },
    "lines": (
        "# a map\n/lib/libc.so\tlibc\tmonthly\n\netc/passwd\tlibc\t\r\n/usr/../usr/bin/ls\tls\t7\n"
    ),
    "no end of line": "/lib/libc.so\tlibc\tmonthly\netc/passwd\tlibc\n/usr/bin/ls\tls",
    "mark": b"\xef\xbb\xbf/lib/libc.so\tlibc\tmonthly\netc/passwd\tlibc\n/usr/bin/ls\tls",
}


@pytest.mark.parametrize("form", MAPS)
def test_forms_of_a_map(written: Any, form: str) -> None:
    path = written(MAPS[form])
    owners, found = owners_of(TREE, path)
    assert files_of(TREE, owners) == {
        "usr/lib/libc.so": "libc",
        "etc/passwd": "libc",
        "usr/bin/ls": "ls",
    }
    assert {name: days for name, days in intervals_of(found).items() if ":" not in name} == {
        "libc": 30,
        "ls": 7,
    }
    assert found.warnings == ()
    assert {component.source for component in found.components} == {f"file {path}", "unclaimed"}


def test_paths_that_the_tree_lacks_are_one_warning(written: Any) -> None:
    path = written("/usr/bin/ls\tls\n/gone\ta\n/gone\ta\n/usr/lib/x/y\tb\n")
    owners, found = owners_of(TREE, path)
    assert files_of(TREE, owners) == {"usr/bin/ls": "ls"}
    assert found.warnings == (f"{path}: names 3 paths that the tree lacks: `/gone`, …",)


def test_raw_names_in_maps(written: Any) -> None:
    """Names that are not UTF-8: bytes in lines and in JSON, half surrogates as Python's json writes
    them.
    """
    view = DictTree({})
    view.paths.append(b"caf\xe9")
    view.directories, view.sizes, view.links = b"\1\0", [0, 1], [0, 0]
    for content in (
        b"/caf\xe9\tx\n",
        b'{"x": {"files": ["/caf\xe9"]}}',
        b'{"x": {"files": ["/caf\\udce9"]}}',
    ):
        assert owners_of(view, written(content))[0] == {"caf\udce9": "x"}
    utf8 = DictTree({"größe": b"", "日": b""})
    for text in (
        '{"ö": {"files": ["größe", "日"]}}',
        json.dumps({"ö": {"files": ["größe", "日"]}}),
    ):
        assert owners_of(utf8, written(text))[0] == {"größe": "ö", "日": "ö"}


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        ("", "", "is empty"),
        (" \n", "", "is empty"),
        ("/a\tx\n/b\n", ":2", "`/b` has no component behind a tab"),
        ("a,b\n", ":1", "`a,b` has no component behind a tab"),
        ("/a\tx\tdaily\tz\n", ":1", "has more than path, component and interval"),
        ("/a\tx\toften\n", ":1", "the interval `often` must be a number of days"),
        ("/a\t\n", ":1", "has no component behind a tab"),
        ("/\tx\n", ":1", "names no path"),
        (b"/a\t\xff\n", ":1", "the component is not UTF-8"),
        ("/a\tunclaimed:x\n", ":1", "the component `unclaimed:x` begins with"),
        (
            "/usr/bin/ls\tx\n/etc/passwd\ty\n/usr/bin/ls\tz\n",
            ":3",
            "`/usr/bin/ls` belongs to `z` here, but to `x` before",
        ),
        (
            "/lib/libc.so\tx\n/usr/lib/libc.so\tz\n",
            ":2",
            "`/usr/lib/libc.so` belongs to `z` here, but to `x` before",
        ),
        ("/gone\tx\n/gone\tz\n", ":2", "`/gone` belongs to `z` here, but to `x` before"),
        ("x" * 70000, ":1", "longer than 65536 bytes"),
        (b"\x1f\x8b\x08\n", ":1", "`\\x1f\\x8b\\x08` has no component"),
        ("[]", ":1", "`[]` has no component behind a tab"),
        ('{"a": {"files": ["x"', ":1", "not valid JSON"),
        ('{"a": 1}', ": a", "must be an object with a list `files`"),
        ('{"a": {"files": "x"}}', ": a", "must be an object with a list `files`"),
        ('{"a": {"files": [1]}}', ": a: files[0]", "a path must be a string"),
        ('{"a": {"files": ["/"]}}', ": a: files[0]", "names no path"),
        ('{"a": {"files": [], "interval": "often"}}', ": a", "the interval `often` must be"),
        ('{"a": {"files": [], "interval": []}}', ": a", "`interval` must be a number of days"),
        ('{"a": {"files": []}, "a": {"files": []}}', "", "the name `a` stands twice in one object"),
        ('{"": {"files": []}}', "", "the component `` is empty"),
        (
            '{"a": {"files": ["usr/bin/ls"]}, "b": {"files": ["x", "usr/bin/ls"]}}',
            ": b: files[1]",
            "belongs to `b` here, but to `a` before",
        ),
        ('{"schema": 2, "entries": []}', "", "the schema `2` is not known"),
        ('{"schema": 3, "entries": {}}', ": entries", "must be a list of objects"),
        ('{"schema": 3}', ": entries", "must be a list of objects"),
        (
            '{"schema": 3, "entries": [1]}',
            ": entries[0]",
            "must be an object with `path` and `component`",
        ),
        (
            '{"schema": 3, "entries": [{"path": "a"}]}',
            ": entries[0]",
            "`component` must be a string",
        ),
        (
            '{"schema": 3, "entries": [{"path": "\\ud800", "component": "a"}]}',
            ": entries[0]",
            "holds half of a surrogate pair",
        ),
        ('{"a": ' + "[" * 100_000, "", "nested too deep"),
        ('{"a": ' + "9" * 5000 + "}", "", "not valid JSON: Exceeds the limit"),
    ],
)
def test_what_is_wrong_with_a_map(
    written: Any, content: str | bytes, where: str, what: str
) -> None:
    path = written(content)
    with pytest.raises(UsageError) as caught:
        owners_of(TREE, path)
    assert caught.value.where == f"{path}{where}"
    assert what in caught.value.what
    assert len(caught.value.lines()[0].splitlines()) == 1


def test_maps_out_of_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map of 2 GB, one that is not there, is a FIFO, is a directory, has too many values."""
    path = tmp_path / "map"
    for head in (b"{", b"/a\tb\n"):
        with open(path, "wb") as file:
            file.write(head)
            file.truncate(2 << 30)
        with pytest.raises(UsageError, match=r"has 2,147,483,648 bytes; at most"):
            owners_of(TREE, path)
    path.unlink()
    with pytest.raises(UsageError, match="cannot be opened: No such file"):
        owners_of(TREE, path)
    os.mkfifo(path)
    for odd in (path, tmp_path):
        with pytest.raises(UsageError, match="is not a regular file"):
            owners_of(TREE, odd)
    monkeypatch.setattr(map_file, "MOST_VALUES", 100)
    path.unlink()
    path.write_text('{"a": {"files": [' + "[]," * 100 + "[]]}}")
    with pytest.raises(UsageError, match="has more than 100 values"):
        owners_of(TREE, path)


def test_the_map_is_left_at_a_check(written: Any) -> None:
    path = written("".join(f"/x{number}\ta\n" for number in range(10_000)))

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_owners(TREE, split_config(path), check=stop)


# -- whatever is in a map


@hypothesis.settings(max_examples=150)
@hypothesis.given(
    strategies.binary(max_size=200)
    | strategies.lists(
        strategies.sampled_from(
            [b"/usr/bin/ls", b"\t", b"a", b"\n", b"#", b"daily", b"\xff", b"/"]
        ),
        max_size=20,
    ).map(b"".join)
    | strategies.recursive(
        strategies.none()
        | strategies.booleans()
        | strategies.floats()
        | strategies.sampled_from([3, "usr/bin/ls", "a", "daily", "\udcff"]),
        lambda inner: (
            strategies.lists(inner, max_size=4)
            | strategies.dictionaries(
                strategies.sampled_from(
                    ["schema", "entries", "files", "path", "component", "interval", "x"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_map_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any-map"
    path.write_bytes(content)
    if error := error_of(TREE, path):
        assert error.where.startswith(str(path))
