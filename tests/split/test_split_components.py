"""Who owns a file (contract: split-components): maps, attributes, paths, hard links, and what
nobody claims.
"""

from __future__ import annotations

import copy
import json
import os
import re
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies
from split_trees import DictTree, DirectoryTree, error_of, intervals_of, owners_of, split_config
from trees import abilities

from build_oci.config.components import name_problem, translate
from build_oci.errors import TreeError, UsageError
from build_oci.split.component import (
    intervals_of_changelogs,
    latest_days,
    parse_interval,
)
from build_oci.split.components import find_owners
from build_oci.split.root import RootFiles
from build_oci.split.sources import map_file
from build_oci.split.tree import TreeIndex

DAY = 86400
TREE = DictTree(
    {
        "lib": "usr/lib",
        "etc/passwd": b"12345",
        "usr/bin/ls": b"ls",
        "usr/lib/libc.so": b"123",
        "usr/lib/modules/6.1/a.ko": b"1234",
        "usr/share/fonts/x.ttf": b"1",
    }
)


def files_of(view: DictTree, owners: dict[str, str], prefix: str = "unclaimed:") -> dict[str, str]:
    """What a source claims, without what was made for the rest."""
    return {path: name for path, name in owners.items() if not name.startswith(prefix)}


# -- intervals and names


def test_intervals() -> None:
    words = {
        "daily": 1,
        "weekly": 7,
        "biweekly": 14,
        "monthly": 30,
        "quarterly": 91,
        "yearly": 365,
        " Weekly ": 7,
        "3": 3,
        "0.5": 0.5,
    }
    assert {word: parse_interval(word) for word in words} == words
    assert (parse_interval(10), parse_interval(2.5)) == (10, 2.5)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "often",
        "0",
        "-1",
        "nan",
        "inf",
        "1e9",
        "9" * 400,
        0,
        -3,
        True,
        10**400,
        float("nan"),
        None,
        [],
    ],
)
def test_what_is_no_interval(value: object) -> None:
    with pytest.raises(
        ValueError,
        match=(
            "must be a number of days up to 36500, or one of daily, weekly, biweekly, monthly,"
            " quarterly, yearly"
        ),
    ):
        parse_interval(value)


def test_latest_days() -> None:
    assert latest_days([5 * DAY, 7 * DAY, 5 * DAY + 9, 0, -DAY]) == [7, 5]
    assert latest_days(DAY * (1 + number) for number in range(30)) == list(range(30, 10, -1))


def test_intervals_of_changelogs() -> None:
    changelogs = {
        "often": [10_000 - 10 * number for number in range(20)],
        "once": [9_900, 9_000, 8_000],
        "young": [10_000, 9_990, 9_970],
        "still": [9_270, 9_260, 9_250],  # not in the last two years, however busy it was before
    }
    assert intervals_of_changelogs(changelogs) == {
        "often": pytest.approx(190 / 19.5),
        "once": pytest.approx(730 / 1.5),
        "young": pytest.approx(30 / 2.5),
        "still": 1460,
    }
    assert intervals_of_changelogs({}) == {}
    assert intervals_of_changelogs({"a": [3, 1]}) == {"a": pytest.approx(2 / 1.5)}
    # Of a hundred, one may be dated in the future.
    others = {f"{number:02}": [10_000, 9_000] for number in range(99)}
    assert intervals_of_changelogs(others | {"future": [50_000, 9_000]})["00"] == 730 / 1.5


def test_names() -> None:
    assert [name for name in ("a", "größe", "a b/c", "x" * 255) if name_problem(name)] == []
    assert all(name_problem(name) for name in ("", "a\n", "\x1b[0m", "x" * 256, "unclaimed:usr"))


# -- maps


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(content: bytes | str | dict[str, Any]) -> Path:
        path = tmp_path / "map"
        data = json.dumps(content) if isinstance(content, dict) else content
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    return write


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


# -- attributes


def with_attributes(
    components: dict[str, bytes], intervals: dict[str, bytes] | None = None
) -> DictTree:
    """TREE, with the attributes of these paths."""
    view = copy.copy(TREE)
    view.components = {
        view.paths.index(os.fsencode(path)): value for path, value in components.items()
    }
    view.intervals = {
        view.paths.index(os.fsencode(path)): value for path, value in (intervals or {}).items()
    }
    return view


def test_attributes_hold_for_all_below() -> None:
    view = with_attributes(
        {"usr": b"base", "usr/lib/modules": b"kernel\0", "usr/bin/ls": b"ls"},
        {"usr/lib/modules": b"monthly", "usr/bin/ls": b"2"},
    )
    owners, found = owners_of(view, "xattr")
    assert files_of(view, owners) == {
        **dict.fromkeys(
            [
                "usr",
                "usr/bin",
                "usr/lib",
                "usr/lib/libc.so",
                "usr/share",
                "usr/share/fonts",
                "usr/share/fonts/x.ttf",
            ],
            "base",
        ),
        **dict.fromkeys(
            ["usr/lib/modules", "usr/lib/modules/6.1", "usr/lib/modules/6.1/a.ko"], "kernel"
        ),
        "usr/bin/ls": "ls",
    }
    assert {name: days for name, days in intervals_of(found).items() if ":" not in name} == {
        "base": 7,
        "kernel": 30,
        "ls": 2,
    }
    assert found.warnings == ()


def test_an_attribute_on_the_root_holds_for_all() -> None:
    owners, found = owners_of(
        with_attributes({"": b"all"}, {"etc": b"daily"}), "xattr", unclaimed="error"
    )
    assert set(owners.values()) == {"all"}
    assert intervals_of(found) == {"all": 1}


def test_what_is_wrong_with_attributes() -> None:
    for value, what in (
        (b"", "is empty"),
        (b"\xff", "is not UTF-8"),
        (b"unclaimed:x", "begins with"),
        (b"a\nb", "cannot be printed"),
    ):
        with pytest.raises(TreeError, match=what) as caught:
            owners_of(with_attributes({"usr/bin/ls": value}), "xattr")
        assert caught.value.where == "/tree/usr/bin/ls"
    with pytest.raises(
        TreeError, match=r"its attribute user.update-interval, `x`, must be a number of days"
    ):
        owners_of(with_attributes({"usr/bin/ls": b"a"}, {"usr/bin/ls": b"x"}), "xattr")
    found = owners_of(with_attributes({}, {"usr/bin/ls": b"daily", "etc": b"daily"}), "xattr")[1]
    assert found.warnings == (
        (
            "/tree/etc: has the attribute user.update-interval but no component, so it says nothing"
            " (and so with 1 more)"
        ),
    )
    found = owners_of(
        with_attributes(
            {"usr/bin/ls": b"a", "etc": b"a"}, {"usr/bin/ls": b"daily", "etc": b"weekly"}
        ),
        "xattr",
    )[1]
    assert found.warnings == (
        "xattr: the component `a` is given more than one interval; the first, 7 days, holds",
    )


# -- paths


def test_paths() -> None:
    sources = {
        "kernel": ["usr/lib/modules", "usr/lib/firmware"],
        "fonts": ["/usr/share/fonts/**"],
        "libraries": ["lib/*.so"],
        "rest": ["usr"],
    }
    owners, found = owners_of(TREE, sources)
    assert files_of(TREE, owners) == {
        **dict.fromkeys(
            ["usr", "usr/bin", "usr/bin/ls", "usr/lib", "usr/share", "usr/share/fonts"], "rest"
        ),
        **dict.fromkeys(
            ["usr/lib/modules", "usr/lib/modules/6.1", "usr/lib/modules/6.1/a.ko"], "kernel"
        ),
        "usr/share/fonts/x.ttf": "fonts",
        "usr/lib/libc.so": "libraries",
    }
    assert found.warnings == (
        (
            "config.yaml: components[0]: `usr/lib/firmware` of the component `kernel` matches"
            " nothing in the tree"
        ),
    )


def test_the_first_name_that_matches_owns() -> None:
    """Even where a later one names a directory above, or the file itself; and then it is no mistake
    that the later one has nothing.
    """
    owners, found = owners_of(TREE, {"all": ["**"], "ls": ["usr/bin/ls", "**/*.so"]})
    assert set(owners.values()) == {"all"}
    assert [warning for warning in found.warnings if "*.so" in warning] == []


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("a/*", ["a/b", "a/.b"], ["a", "a/b/c", "xa/b"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "ab/c"]),
        ("**/x", ["x", "a/x", "a/b/x"], ["ax", "a/x/b"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/xb"]),
        ("?[a-c][!x].so", ["xaz.so", "\nb\n.so"], ["xdz.so", "xax.so", "/az.so", "xa/.so"]),
        ("a[]]b", ["a]b"], ["ab"]),
        ("a[b", ["a[b"], ["ab"]),
        ("a.b+(c)", ["a.b+(c)"], ["axb+(c)"]),
        ("[^a]", ["b"], ["a", "/"]),
    ],
)
def test_globs(pattern: str, matches: list[str], others: list[str]) -> None:
    compiled = re.compile(translate(pattern.encode()) + rb"\Z", re.DOTALL)
    assert [path for path in matches if not compiled.match(path.encode())] == []
    assert [path for path in others if compiled.match(path.encode())] == []


# -- the sources together


def test_the_first_source_that_claims_a_file_owns_it(written: Any) -> None:
    view = with_attributes({"usr": b"attribute"})
    path = written("/usr/bin/ls\tmap\n")
    assert owners_of(view, path, "xattr")[0]["usr/bin/ls"] == "map"
    assert owners_of(view, "xattr", path)[0]["usr/bin/ls"] == "attribute"
    assert owners_of(view, path, "xattr")[0]["usr/lib/libc.so"] == "attribute"


def test_hard_links_go_to_the_first_name_that_has_an_owner() -> None:
    files: dict[str, bytes | str] = dict.fromkeys("abcdef", b"123")
    view = DictTree(files, links=[["a", "c", "e"], ["b", "d"]])
    owners, found = owners_of(view, {"one": ["c"], "two": ["e"], "three": ["d"]}, unclaimed="warn")
    assert owners == {
        "a": "one",
        "c": "one",
        "e": "one",
        "b": "three",
        "d": "three",
        "f": "unclaimed:f",
    }
    assert found.warnings == (
        "/tree/e: belongs to `two`, but is a hard link to /tree/c of `one`, and goes there",
        "/tree: 1 file (3 bytes) without an owner: f",
    )
    assert found.unclaimed == (3, 1, (b"f",))


def test_unclaimed() -> None:
    files: dict[str, bytes | str] = {
        "init": b"1",
        "etc/a/b/c": b"1",
        "etc/a/d": b"1",
        "etc/e": b"1",
        "usr/lib/large": b"1" * 100,
        "usr/lib/same": b"2" * 100,
        "usr/lib/twin": b"2" * 100,
    }
    files |= {f"usr/share/x/{number}": b"1" * 9 for number in range(1000)}
    view = DictTree(files, links=[["usr/lib/same", "usr/lib/twin"]])
    owners, found = owners_of(view, {"b": ["etc/e"]}, unclaimed="warn")
    assert {path: name for path, name in owners.items() if "share" not in path} == {
        "init": "unclaimed:",
        "etc/a/b/c": "unclaimed:etc/a",
        "etc/a/d": "unclaimed:etc/a",
        "etc/e": "b",
        "usr/lib/large": "unclaimed:usr/lib/large",
        "usr/lib/same": "unclaimed:usr/lib/same",
        "usr/lib/twin": "unclaimed:usr/lib/same",
    }
    assert {owners[path] for path in owners if "share" in path} == {"unclaimed:usr/share"}
    assert (found.unclaimed.size, found.unclaimed.files) == (9203, 1006)
    (warning,) = found.warnings
    assert warning.startswith(
        "/tree: 1,006 files (9,203 bytes) without an owner: init, etc/a/d, etc/a/b/c,"
        " usr/lib/large, "
    )
    assert warning.endswith(", …")
    assert owners_of(view, unclaimed="ignore")[1].warnings == ()
    with pytest.raises(
        TreeError, match=r"1,006 files \(9,203 bytes\) without an owner: init, "
    ) as caught:
        owners_of(view, {"b": ["etc/e"]}, unclaimed="error")
    assert caught.value.what.count(",") == 2 + 10  # two thousands, and ten paths
    assert owners_of(view, {"b": ["**"]}, unclaimed="error")[1].unclaimed == (0, 0, ())


def test_an_empty_tree() -> None:
    assert owners_of(DictTree({}), "xattr", "packages", unclaimed="error")[0] == {}


# -- reading below a root


def test_nothing_outside_the_root_is_opened(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("outside")
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "file").write_text("inside")
    (root / "outside").mkdir()
    (root / "outside" / "file").write_text("own")
    for name, target in {
        "up": "..",
        "a/b/up": "../../../../../../outside",
        "absolute": "/outside",
        "a/b/absolute": "/outside",
        "real": str(tmp_path / "outside"),
        "loop": "loop",
        "ring": "ring2/x",
        "ring2": "ring",
        "link": "a/file",
        "self": ".",
        "a/b/c": "../../a/b/../.",
        "file": "a/file",
    }.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "fifo")
    files = RootFiles(str(root))

    def read(path: str) -> bytes | None:
        file = files.open_file(os.fsencode(path))
        if file is None:
            return None
        with os.fdopen(file, "rb") as opened:
            return opened.read()

    tree = TreeIndex(DirectoryTree(root))
    directories = {
        "up": "",
        "a/b/up": "outside",
        "a/b/absolute": "outside",
        "self/self/a": "a",
        "a/b/c": "a",
        "a/b/c/..": "",
        "a/b": "a/b",
    }
    assert {
        path: os.fsdecode(tree.real_directory(os.fsencode(path)) or b"") for path in directories
    } == directories
    assert [
        path
        for path in ("real", "loop", "ring", "ring/x", "link", "gone/..", "fifo")
        if tree.real_directory(path.encode())
    ] == []
    assert tree.paths[tree.find(b"/absolute/./file") or 0] == b"outside/file"
    before = len(os.listdir("/proc/self/fd"))
    inside = {
        "a/file": "inside",
        "./a//file": "inside",
        "self/self/a/file": "inside",
        "a/b/c/file": "inside",
        "a/b/../file": "inside",
    }
    assert {path: (read(path) or b"").decode() for path in inside} == inside
    own = [
        "up/outside/file",
        "a/b/absolute/file",
        "a/b/up/file",
        "absolute/file",
        "a/../../outside/file",
    ]
    assert {read(path) for path in own} == {b"own"}
    nothing = [
        "",
        "..",
        "a",
        "gone",
        "gone/x",
        "a/file/x",
        "loop/x",
        "ring/x",
        "link",
        "fifo",
        "real/file",
        "up/secret",
        "a/..",
    ]
    assert [path for path in nothing if read(path) is not None] == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_directory_of_the_disk(tmp_path: Path) -> None:
    """All of it on real files: directory links, hard links, attributes."""
    (tmp_path / "usr" / "lib").mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "usr" / "lib" / "a").write_bytes(b"1" * 10)
    os.link(tmp_path / "usr" / "lib" / "a", tmp_path / "usr" / "lib" / "b")
    expected = {"usr/lib/a": "x", "usr/lib/b": "x", "lib": "unclaimed:"}
    assert owners_of(DirectoryTree(tmp_path), {"x": ["lib/a"]})[0] == expected
    if "user" in abilities().xattrs:
        os.setxattr(tmp_path / "usr", "user.component", b"y")
        assert owners_of(DirectoryTree(tmp_path), "xattr")[0]["usr/lib/b"] == "y"


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
