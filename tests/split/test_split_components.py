"""Who owns a file (contract: split-components): maps, attributes, paths, hard links, and what
nobody claims.
"""

from __future__ import annotations

import copy
import os
import re
from typing import Any

import pytest
from split_trees import TREE, DictTree, files_of, intervals_of, owners_of, written

from build_oci.config.components import name_problem, translate
from build_oci.errors import TreeError
from build_oci.split.component import intervals_of_changelogs, latest_days, parse_interval

__all__ = ["written"]

DAY = 86400


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
