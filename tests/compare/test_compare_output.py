"""contract: compare-reports. Exit statuses, the terminal, the page, and names that nobody should
trust.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html.parser
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import clients
import layouts
import pytest
from archives import header
from stacks import Member, directory, image, packed

from build_oci.cli.command import main
from build_oci.compare.html import page
from build_oci.compare.report import compare_layouts
from build_oci.compare.text import Style, cells, cut, fitted, report_lines, style_for
from build_oci.compare.treemap import Maps
from build_oci.errors import BuildOciError
from build_oci.split.plan_file import plan_schema

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a\x1b[31mred",
    "line\nbreak",
    "\u202eright to left",
    "caf\udce9",
    "&amp;\u2028'\"",
    "日本語" * 20,
    "x" * 200,
]


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def run(*args: str | Path) -> Done:
    """The command, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(list(map(str, args)))
    return Done(status, out.getvalue(), err.getvalue())


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two images of which the new one costs some 10 kB."""
    first = [directory("etc"), Member("etc/a", content=b"a")]
    return image(tmp_path / "old", [first]), image(
        tmp_path / "new", [[*first, Member("etc/b", content=os.urandom(10_000))]]
    )


@pytest.fixture
def hostile(tmp_path: Path) -> tuple[Path, Path]:
    """A new image full of names that want to be something else."""
    names = [Member(name, content=name.encode("utf-8", "surrogateescape")) for name in HOSTILE]
    labels = {name: name for name in HOSTILE if name.isascii()}

    def annotate(manifest: clients.Document) -> None:
        manifest["annotations"] = labels
        rows = [[HOSTILE[0], 7, 1, 0, ""], [HOSTILE[2], 7, 1, 0, ""]]
        manifest["layers"][0]["annotations"] = {
            "io.build-oci.components": json.dumps({"layer": 0, "of": 1, "components": rows})
        }

    old = image(tmp_path / "hostile-old", [[Member("a")]])
    new = image(
        tmp_path / "hostile-new",
        [names],
        config=layouts.set_to("config", {"Labels": labels, "Env": [HOSTILE[0]]}),
        manifest=annotate,
    )
    return old, new


# ---- exit status


def test_exit_statuses(pair: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = pair
    assert run("compare", old, old).returncode == 0
    different = run("compare", old, new)
    assert (different.returncode, different.stderr) == (1, "")
    assert "+ etc/b" in different.stdout
    for missing in (
        run("compare", old, tmp_path / "nowhere"),
        run("compare", old),
        run("show", tmp_path),
        run("compare", "--nonsense", old, new),
    ):
        assert missing.returncode == 2
        assert missing.stderr.startswith("build-oci: error: ")
        assert missing.stdout == ""
    for reference in (f"{new}@7", f"{new}:no-such-name"):
        assert run("compare", old, reference).returncode == 2
    blob = next(path for path in (new / "blobs/sha256").iterdir() if path.stat().st_size > 10_000)
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    damaged = run("compare", old, new)
    assert damaged.returncode == 2
    assert "is damaged" in damaged.stderr


def test_the_budget_decides_the_status(pair: tuple[Path, Path]) -> None:
    old, new = pair
    within = run("compare", "-q", "--max-download", "1M", old, new)
    assert (within.returncode, within.stdout, within.stderr) == (0, "", "")
    above = run("compare", "-q", "--max-download", "10k", old, new)
    assert above.returncode == 1
    assert re.fullmatch(
        r"build-oci: [0-9.]+ kB to download, more than the 10\.0 kB of --max-download\n",
        above.stderr,
    )
    assert run("compare", "-q", "--max-download", "0", old, old).returncode == 0
    assert run("compare", "-q", "--max-download", "10 apples", old, new).returncode == 2
    # It follows from the documents alone.
    for layer in clients.manifest_of(new)["layers"]:
        (new / "blobs" / layer["digest"].replace(":", "/")).unlink()
    assert run("compare", "-q", "--max-download", "1M", old, new).returncode == 0


def test_a_full_disk_is_trouble_and_a_closed_pipe_is_none(pair: tuple[Path, Path]) -> None:
    old, new = pair
    command: list[str | Path] = [sys.executable, "-P", "-m", "build_oci", "compare", old, new]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert "No space left" in done.stderr
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


# ---- the terminal


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int, hostile: tuple[Path, Path]) -> None:
    old, new = hostile
    lines = list(
        report_lines(
            compare_layouts(str(old), str(new), workers=1), Style(width, colour=False, most=None)
        )
    )
    assert all(line.isprintable() for line in lines)
    assert [line for line in lines if cells(line) > width] == []
    text = "\n".join(lines)
    assert "a\\x1b[31mred" in text
    assert "caf\\xe9" in text
    assert "line\\x0abreak" in text


def test_colour_is_for_terminals(pair: tuple[Path, Path]) -> None:
    old, new = pair

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def painted(stream: io.StringIO, **environment: str) -> bool:
        report = compare_layouts(str(old), str(new), workers=1)
        return any("\x1b[" in line for line in report_lines(report, style_for(stream, environment)))

    assert painted(Terminal())
    assert not painted(Terminal(), NO_COLOR="1")
    assert not painted(Terminal(), TERM="dumb")
    assert not painted(io.StringIO())


@pytest.mark.parametrize("width", range(3, 12))
def test_what_is_too_long_is_cut(width: int) -> None:
    for text in ("abcdefghijklmnop", "日本語日本語日本語", "short", "e\u0301" * 30):
        for cutter in (fitted, cut):
            assert cells(cutter(text, width)) <= width
            assert cells(text) > width or cutter(text, width) == text


# ---- the page


class Elements(html.parser.HTMLParser):
    """Every element with its attributes, and the text of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open][-1] += data


def elements(old: Path, new: Path) -> Elements:
    parsed = Elements()
    parsed.feed(page(compare_layouts(str(old), str(new), workers=1, maps=Maps)).decode())
    return parsed


def test_the_page_is_the_same_whatever_names_there_are(
    pair: tuple[Path, Path], hostile: tuple[Path, Path]
) -> None:
    """Foreign text is data of the page, and never an element or an attribute of it."""
    plain, spoilt = elements(*pair), elements(*hostile)
    assert plain.found == spoilt.found
    scripts = [attributes for tag, attributes in plain.found if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    data = json.loads(spoilt.texts["script"][0])
    listed = {entry["path"] for entry in data["images"][0]["entries"]["listed"]}
    assert {HOSTILE[0], HOSTILE[1], "a\\x1b[31mred", "caf\\xe9"} <= listed
    assert not any(character in spoilt.texts["script"][0] for character in "<>&'\u2028")


def test_the_page_allows_its_own_script_and_style_and_nothing_else(pair: tuple[Path, Path]) -> None:
    parsed = elements(*pair)
    policy = next(
        attributes["content"]
        for tag, attributes in parsed.found
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None

    def source(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives == {
        "default-src": "'none'",
        "style-src": source(parsed.texts["style"][0]),
        "script-src": source(parsed.texts["script"][1]),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    # Nothing leads elsewhere.
    assert not any(
        name in attributes
        for _, attributes in parsed.found
        for name in ("src", "href", "onclick", "style")
    )
    assert "innerHTML" not in parsed.texts["script"][1]


def test_the_map_holds_all_bytes_and_stays_small(tmp_path: Path) -> None:
    members = [
        Member(f"d{number % 90}/e{number % 7}/f{number}", content=bytes(number))
        for number in range(3000)
    ]
    old, new = (
        image(tmp_path / "old", [members[:2000]]),
        image(tmp_path / "new", [members[:1000], members[1000:]]),
    )
    (comparison,) = compare_layouts(str(old), str(new), workers=1, maps=Maps).comparisons
    for box in comparison.map.values():
        waiting, count = [box], 0
        while waiting:
            one = waiting.pop()
            count += 1
            assert 0 <= one["c"] <= one["s"]
            if "d" in one:
                assert sum(inner["s"] for inner in one["d"]) == one["s"]
                waiting += one["d"]
        assert count < 3000
        assert box["s"] == pytest.approx(
            sum(512 + len(member.content) for member in members), rel=0.2
        )
        assert box["c"] == pytest.approx(
            sum(512 + len(member.content) for member in members[2000:]), rel=0.2
        )


def test_the_map_shows_every_layer_and_counts_what_it_leaves_out(tmp_path: Path) -> None:
    layers = [[Member(f"f{number}", content=b"x" * number)] for number in range(90)]
    many = [Member(f"d{number}/f", content=b"x" * 600) for number in range(90)]
    old, new = image(tmp_path / "old", layers[:1]), image(tmp_path / "new", [*layers, many])
    (comparison,) = compare_layouts(str(old), str(new), workers=1, maps=Maps).comparisons
    boxes = comparison.map["layers"]["d"]
    assert len(boxes) == 91
    (largest,) = (box for box in boxes if box["n"].startswith("↓ #90"))
    assert [box["n"] for box in largest["d"]][-1] == "… 30 more"


def test_history_is_one_line(tmp_path: Path) -> None:
    def with_history(text: str) -> Any:
        return layouts.set_to("history", [{"comment": f"{text} {number}"} for number in range(30)])

    old, new = (
        image(tmp_path / name, [[Member(name)]], config=with_history(name)) for name in "ab"
    )
    report = compare_layouts(str(old), str(new), workers=1)
    lines = list(report_lines(report, Style(80, colour=False)))
    assert [line for line in lines if "history" in line] == ["  history  30 entries differ"]
    every = list(report_lines(report, Style(80, colour=False, most=None)))
    assert sum("history[" in line for line in every) == 30


def test_names_of_components_stay_whole(tmp_path: Path) -> None:
    """Lines are not broken at the hyphens of a name."""
    names = [f"gst-plugins-of-{number}-kinds" for number in range(15)]

    def annotate(digest: str) -> Any:
        rows = [[name, 7, 1, 0, digest] for name in names]
        text = json.dumps({"layer": 0, "of": 1, "components": rows})

        def change(manifest: clients.Document) -> None:
            manifest["layers"][0]["annotations"] = {"io.build-oci.components": text}

        return change

    old, new = (
        image(tmp_path / name, [[Member(name)]], manifest=annotate(name * 16)) for name in "ab"
    )
    text = "\n".join(
        report_lines(compare_layouts(str(old), str(new), workers=1), Style(80, colour=False))
    )
    assert all(name in text for name in names)


def test_html_is_written(pair: tuple[Path, Path], tmp_path: Path) -> None:
    assert run("compare", "-q", "--html", tmp_path / "page.html", *pair).returncode == 1
    assert (tmp_path / "page.html").read_bytes().startswith(b"<!doctype html>")
    nowhere = run("compare", "-q", "--html", tmp_path / "nowhere" / "page.html", *pair)
    assert (nowhere.returncode, nowhere.stdout) == (2, "")


def test_json_and_its_schema(pair: tuple[Path, Path]) -> None:
    assert (
        json.loads(run("compare", "--json", *pair).stdout)["images"][0]["entries"]["added"]["count"]
        == 1
    )
    assert json.loads(run("--schema", "compare").stdout)["title"] == "build-oci compare"
    assert json.loads(run("--schema", "plan").stdout) == plan_schema()
    assert "compare" not in json.loads(run("--schema").stdout)["title"]


# ---- show


def test_show_reads_documents_alone_unless_asked(pair: tuple[Path, Path]) -> None:
    _, new = pair
    layer = clients.manifest_of(new)["layers"][0]
    shown = json.loads(run("show", "--json", "--deep", new).stdout)["images"][0]
    assert [(one["digest"], one["size"], one["archiveSize"]) for one in shown["layers"]] == [
        (layer["digest"], layer["size"], layer["size"])
    ]
    assert shown["directories"] == [{"path": "etc", "size": 10_001, "entries": 2}]
    (new / "blobs" / layer["digest"].replace(":", "/")).unlink()
    assert "1 layer" in run("show", new).stdout
    assert run("show", "--files", new).returncode == 2


def test_show_lists_what_the_image_unpacks_to(hostile: tuple[Path, Path], tmp_path: Path) -> None:
    stack = [
        [directory("etc"), Member("etc/a", content=b"a"), Member("etc/gone")],
        [
            Member("etc/.wh.gone"),
            Member("etc/l", tarfile.SYMTYPE, target="a\x1b", mode=0o777),
            Member("etc/h", tarfile.LNKTYPE, target="etc/a"),
        ],
    ]
    lines = run("show", "--files", image(tmp_path / "image", stack)).stdout.splitlines()
    listed = lines[lines.index("", lines.index("") + 1) :]
    paths = [line.split(" ", 6)[-1] for line in listed if line.startswith(("d", "-", "l", "h"))]
    assert [path.rsplit(":", 1)[-1][3:] for path in paths] == [
        "etc",
        "etc/a",
        "etc/h link to etc/a",
        "etc/l -> a\\x1b",
    ]
    assert run("show", "--files", hostile[1]).stdout.replace("\n", "").isprintable()


# ---- archives


def test_archives_that_are_none(tmp_path: Path) -> None:
    good = tmp_path / "layout"
    image(good, [[Member("a", content=b"a")]])
    files = sorted(path for path in good.rglob("*") if path.is_file())
    whole = packed(
        [Member(str(path.relative_to(good)), content=path.read_bytes()) for path in files]
    )
    layout = tmp_path / "image.tar"
    layout.write_bytes(whole)
    assert run("compare", good, layout).returncode == 0
    link = header(b"index.json", b"2") + whole
    unsealed = bytearray(whole)
    unsealed[100] ^= 1  # the mode of the first file: only the checksum tells
    for spoilt in (
        b"",
        b"x" * 2000,
        whole[:700],
        bytes(unsealed),
        whole[: whole.index(b"index.json") + 600],
        link,
        b"\x1f\x8b" + whole,
        header(b"f", size=1 << 32) + bytes(512),
    ):
        layout.write_bytes(spoilt)
        done = run("compare", good, layout)
        assert done.returncode == 2, spoilt[:100]
        assert done.stderr.startswith("build-oci: error: "), done.stderr
        assert "internal" not in done.stderr


def test_damaged_components_are_passed_over(tmp_path: Path) -> None:
    def annotate(manifest: clients.Document) -> None:
        manifest["layers"][0]["annotations"] = {"io.build-oci.components": '{"layer": "x"}'}

    old, new = (
        image(tmp_path / "old", [[Member("a")]]),
        image(tmp_path / "new", [[Member("b")]], manifest=annotate),
    )
    assert compare_layouts(str(old), str(new), workers=1).comparisons[0].components == []


def test_the_first_error_is_the_one_that_is_told(tmp_path: Path) -> None:
    """Other layers are stopped, and that is not what went wrong."""
    stack = [[Member(f"f{number}", content=os.urandom(3000))] for number in range(8)]
    old, new = image(tmp_path / "old", [[Member("a")]]), image(tmp_path / "new", stack)
    digest = clients.manifest_of(new)["layers"][7]["digest"]
    (new / "blobs" / digest.replace(":", "/")).unlink()
    with pytest.raises(BuildOciError, match="is missing"):
        compare_layouts(str(old), str(new), workers=2)
