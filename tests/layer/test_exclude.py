"""`exclude` and `owner` (contract: config-exclude, config-owner): what is left out of the walk,
against a plain-Python twin; patterns are hostile strings."""

from __future__ import annotations

import io
import os
import random
import re
import tarfile
import time
from pathlib import Path

import clients
import pytest
from faults import run, upon

from build_oci import build
from build_oci._native.walk import Tree
from build_oci.config.load import load_config
from build_oci.config.patterns import compile_pattern
from build_oci.errors import ConfigError


def matcher(pattern: str) -> re.Pattern[str]:
    """The twin: WRITTEN as a regular expression for whole paths."""
    anchored = pattern.strip("/")
    if pattern.endswith("/"):
        anchored += "/*"
    out = ""
    parts = anchored.split("/")
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "**":
            out += ".+" if last else "(?:[^/]+/)*"
            continue
        at = 0
        while at < len(part):
            if part[at] == "*":
                out += "[^/]*"
            elif part[at] == "?":
                out += "[^/]"
            elif part[at] == "[":
                end = part.index("]", at + (3 if part[at + 1] in "!^" else 2))
                inside = part[at + 1 : end]
                out += "[" + ("^" + inside[1:] if inside[0] in "!^" else inside) + "]"
                at = end
            elif part[at] == "\\":
                at += 1
                out += re.escape(part[at])
            else:
                out += re.escape(part[at])
            at += 1
        out += "" if last else "/"
    return re.compile(out, re.DOTALL)


def left(root: Path, patterns: list[str]) -> list[str]:
    """The twin's walk."""
    expressions = [matcher(pattern) for pattern in patterns]
    found = []
    for folder, folders, files in os.walk(root):
        base = os.path.relpath(folder, root)
        for name in list(folders) + files:
            path = os.path.normpath(os.path.join(base, name))
            if any(expression.fullmatch(path) for expression in expressions):
                if name in folders:
                    folders.remove(name)
            else:
                found.append(path)
    return sorted(found)


def walked(root: Path, patterns: list[str], **options: object) -> Tree:
    exclude = [compile_pattern(pattern) for pattern in patterns]
    tree = Tree(os.fsencode(root), exclude=exclude, **options)  # type: ignore[arg-type]
    tree.run()
    assert tree.problems() == []
    return tree


def paths(tree: Tree) -> list[str]:
    return sorted(os.fsdecode(path) for path in tree.paths() if path)


NAMES = ["a", "b", "ab", "abc", "é", "*", "[", "x.pyc", "usr", "-", ".h"]
PARTS = [
    "a",
    "b",
    "ab*",
    "*",
    "**",
    "?",
    "??",
    "*b*",
    "[ab]",
    "[!a]",
    "[a-c]*",
    "\\*",
    "*.pyc",
    "usr",
    "**a",
    "*?",
    "\\[",
    "[]]",
    "[!]a]b",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    rng = random.Random(7)
    folders = [root]
    for _ in range(400):
        path = rng.choice(folders) / rng.choice(NAMES)
        if path.exists() or len(path.relative_to(root).parts) > 6:
            continue
        if rng.random() < 0.6:
            path.mkdir()
            folders.append(path)
        else:
            path.write_text("")
    return root


@pytest.mark.platform
def test_against_the_twin(root: Path) -> None:
    rng = random.Random(3)
    for _ in range(200):
        patterns = [
            rng.choice(["", "/"])
            + "/".join(rng.choice(PARTS) for _ in range(rng.randint(1, 4)))
            + rng.choice(["", "", "/"])
            for _ in range(rng.choice([1, 1, 2, 5]))
        ]
        assert paths(walked(root, patterns)) == left(root, patterns), patterns


def test_sysroot_and_its_content(tmp_path: Path) -> None:
    """contract: config-exclude.
    `/sysroot` leaves out the directory with all in it, `/sysroot/` only what is in it; a pattern
    without effect is told."""
    (tmp_path / "sysroot" / "ostree").mkdir(parents=True)
    (tmp_path / "usr" / "sysroot").mkdir(parents=True)
    assert paths(walked(tmp_path, ["/sysroot"])) == ["usr", "usr/sysroot"]
    assert paths(walked(tmp_path, ["sysroot"])) == ["usr", "usr/sysroot"]
    assert paths(walked(tmp_path, ["/sysroot/"])) == ["sysroot", "usr", "usr/sysroot"]
    assert paths(walked(tmp_path, ["**/sysroot"])) == ["usr"]
    tree = walked(
        tmp_path, ["/sysroot", "/nothing", "/usr", "/usr/sysroot/x", "/usr/no*", "**/none"]
    )
    assert tree.unused() == [1, 5]  # below /usr, which was left out, the others might have matched


def test_excluded_directories_are_not_read(tmp_path: Path) -> None:
    """What is in them may be what no layer can hold, or may not be read at all."""
    (tmp_path / "d" / ".wh.x").mkdir(parents=True)
    assert paths(walked(tmp_path, ["d"])) == []
    for _ in range(3):
        tree = Tree(os.fsencode(tmp_path), exclude=[b"d/*"])
        tree.run()
        assert tree.problems() == []


@pytest.mark.platform
def test_hostile_patterns_end_soon(tmp_path: Path) -> None:
    """No pattern makes the walk slow: one comparison for each place in it, and a star is tried anew
    at the cost of a product.
    """
    folder = tmp_path
    for _ in range(12):
        folder = folder / ("a" * 200)
        folder.mkdir()
    patterns = [
        "/".join(["**", "*a" * 60 + "b"] * 30),
        "*a" * 2000 + "b",
        "**/" * 500 + "x",
        "[a-z]*" * 600 + "!",
    ]
    started = time.process_time()
    assert len(paths(walked(tmp_path, patterns))) == 12
    assert time.process_time() - started < 20  # a search that backtracks would take years


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        ('""', "below the root"),
        ("/", "below the root"),
        ("a/../b", "must not hold"),
        ("./a", "must not hold"),
        ('"!a"', "does not bring anything back"),
        ('"[a"', "without a `]`"),
        ('"[[:alpha:]]"', "not understood"),
        ('"[é]"', "not ASCII"),
        ('"a\\\\"', "backslash"),
        ('"a\\0b"', "NUL"),
        ("x" * 5000, "longer"),
    ],
)
def test_patterns_that_mean_nothing(pattern: str, what: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(what)) as error:
        load_config(
            f"images:\n- architecture: amd64\n  os: linux\n  layer: x\n  exclude:\n  - {pattern}\n"
        )
    assert "<stdin>:6: images[0].exclude[0]" in str(error.value)


@pytest.mark.parametrize(
    "value", ["0", "root:root", "-1:0", "0:4294967295", "0:0:0", "[0, 0]", "99999999999:1"]
)
def test_owners_that_are_none(value: str) -> None:
    with pytest.raises(ConfigError, match="must be"):
        load_config(f"images:\n- {{architecture: amd64, os: linux, layer: x, owner: {value}}}\n")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("0:0", (0, 0)),
        ("10:20", (10, 20)),
        ('"1000:100"', (1000, 100)),
        ("4294967294:1", ((1 << 32) - 2, 1)),
    ],
)
def test_owner(written: str, meant: tuple[int, int], tmp_path: Path) -> None:
    """contract: config-owner. UID:GID for every entry; to YAML 1.1, 10:20 is a number to the base
    of 60.
    """
    root = tmp_path / "root"
    (root / "d").mkdir(parents=True)
    (root / "d" / "f").write_text("f")
    text = f"images:\n- {{architecture: amd64, os: linux, layer: {root}, owner: {written}}}\n"
    clients.run_build(text, tmp_path / "out", cwd=tmp_path)
    with tarfile.open(fileobj=io.BytesIO(clients.layer_tars(tmp_path / "out")[0])) as archive:
        assert {(member.uid, member.gid) for member in archive} == {meant}


def test_the_parent_has_what_is_excluded(tmp_path: Path) -> None:
    """contract: config-exclude. An excluded name is not in the tree, so the layer hides the
    parent's.
    """
    root = tmp_path / "root"
    (root / "sysroot" / "ostree").mkdir(parents=True)
    (root / "usr").mkdir()
    (root / "usr" / "x.pyc").write_text("x")
    assert run(clients.layer_config(root), tmp_path / "parent") == (0, "")
    config = upon(clients.layer_config(root), tmp_path / "parent")
    config["images"][0]["exclude"] = ["/sysroot/", "**/*.pyc", "none"]
    status, said = run(config, tmp_path / "out")
    assert status == 0
    assert said.startswith("build-oci: warning: ")
    assert "images[0].exclude: `none` matches nothing" in said
    with tarfile.open(fileobj=io.BytesIO(clients.layer_tars(tmp_path / "out")[-1])) as archive:
        assert archive.getnames() == [".", "sysroot", "sysroot/.wh.ostree", "usr", "usr/.wh.x.pyc"]


def test_warning_of_a_root_that_all_may_write(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for mode, warned in ((0o777, True), (0o1777, False), (0o775, False)):
        root.chmod(mode)
        status, said = run(clients.layer_config(root), tmp_path / f"out-{mode}")
        assert status == 0
        assert ("everyone may write" in said) == warned


@pytest.mark.parametrize(("owner", "warned"), [(None, True), ("0:0", False)])
def test_warning_of_one_owner(
    owner: str | None, warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything belongs to who builds, and that is not root: hardly what an image should say."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "f").write_text("f")
    user = os.geteuid() or 1234
    if os.geteuid() == 0:
        for path in (root, root / "f"):
            os.chown(path, user, user)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    extra = f", owner: {owner}" if owner else ""
    config = load_config(f"images:\n- {{architecture: amd64, os: linux, layer: {root}{extra}}}\n")
    heard: list[str] = []
    build(config, output=tmp_path / "out", warn=heard.append)
    assert [f"all of it belongs to user {user}" in line for line in heard] == [True] * warned
