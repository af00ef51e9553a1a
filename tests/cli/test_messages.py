"""contract: cli-errors. An error is a line that says where and what, and a hint where there is a
way out.

The sources are read for every message that there is, so that a new one must keep to this or say
here why it does not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import build_oci
from build_oci.errors import ParentError
from build_oci.oci.untrusted import named

# The source is the same for every version of Python.
pytestmark = pytest.mark.once

PACKAGE = Path(build_oci.__file__).parent

# Who makes a message, and which of its arguments are where, what and hint: positions, or -1 for a
# keyword alone.
ERRORS = {
    "BuildOciError",
    "UsageError",
    "TreeError",
    "ParentError",
    "PlanError",
    "OutputError",
    "Cancelled",
}
MAKERS = {
    **dict.fromkeys(ERRORS, (-1, 0, -1)),
    "BadValue": (-1, 0, 1),  # whoever catches one knows the place
    "_fail": (0, 1, 2),
    "problem": (0, 1, 2),
    "_problem": (0, 1, -1),
    "warn": (0, 1, -1),
    "ArgumentTypeError": (-1, 0, -1),
    "refuse": (-1, 0, -1),  # made with the place and the hint of one plan
}
# ValueErrors that become a ParentError naming the blob, with a hint (oci.untrusted.named), or a
# finding of `verify`.
DECODERS = ("codec/zstd.py", "codec/gzip.py", "codec/table.py", "parent/lower.py")


class Message(NamedTuple):
    """`what` has `{}` for what is put in. hint: "" where there is none; `{}` where it is only known
    at run time.
    """

    file: str
    line: int
    maker: str
    where: bool
    what: str
    hint: str


def template(node: ast.expr | None, texts: dict[str, str]) -> str:
    """The text of NODE; TEXTS: those of the module's own names, and of those that it imports."""
    match node:
        case None:
            return ""
        case ast.Name(id=name) if name in texts:
            return texts[name]
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(template(value, texts) for value in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return template(left, texts) + template(right, texts)
        case _:
            return "{}"


def modules() -> dict[str, ast.Module]:
    """By their paths in the package."""
    return {
        str(path.relative_to(PACKAGE)): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def texts_of(module: ast.Module) -> dict[str, str]:
    """Its names that stand for a text."""
    return {
        node.targets[0].id: template(node.value, {})
        for node in module.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant | ast.JoinedStr | ast.BinOp)
        and "{}" not in template(node.value, {})
    }


def imported(module: ast.Module, own: dict[str, dict[str, str]]) -> dict[str, str]:
    """The names of MODULE that stand for a text of another one; OWN has those, by path."""
    return {
        name.name: own[file][name.name]
        for node in module.body
        if isinstance(node, ast.ImportFrom)
        and (file := f"{(node.module or '').removeprefix('build_oci.').replace('.', '/')}.py")
        in own
        for name in node.names
        if name.name in own[file]
    }


def messages() -> Iterator[Message]:
    parsed = modules()
    own = {file: texts_of(module) for file, module in parsed.items()}
    for file, module in parsed.items():
        texts = own[file] | imported(module, own)
        for call in ast.walk(module):
            if not isinstance(call, ast.Call):
                continue
            function = call.func
            name = (
                function.id
                if isinstance(function, ast.Name)
                else function.attr
                if isinstance(function, ast.Attribute)
                else ""
            )
            at = (-1, 0, -1) if name == "ValueError" and file in DECODERS else MAKERS.get(name)
            if at is None:
                continue
            if name == "warn" and len(call.args) == 1:  # a line as it is: place and text are in one
                at = (-1, 0, -1)
            found = {keyword.arg: keyword.value for keyword in call.keywords}
            for part, position in zip(("where", "what", "hint"), at, strict=True):
                if 0 <= position < len(call.args):
                    found[part] = call.args[position]
            yield Message(
                file,
                call.lineno,
                name,
                "where" in found,
                template(found.get("what"), texts),
                template(found.get("hint"), texts),
            )


# Messages without a hint, by why there is none. `{}` alone: the text comes from elsewhere, where it
# is held against this rule itself.
NO_WAY_OUT = {
    "it says itself what must be": """
        must be a whole number from 1 to {}, not `{}`
        must be a size such as 200M or 150MiB, not `{}`
        the path is empty
        a path cannot hold a NUL character
        must be two numbers up to {}
        nested more than {} levels deep
        an alias stands inside what it is an alias of
        not valid YAML: {}
    """,
    "for callers of the library": """
        {} is not a whole number of seconds up to the year 9999
        {} is no number of threads
    """,
    "the user has asked for it": """
        stopped by SIGINT
        the build was stopped
    """,
    "made of another message": "{}",
}
# Errors that hold for the process as a whole.
NOWHERE = {"out of memory{}"}
# `hint=NAME`: what NAME may be; the tests of each module meet them.
RUN_TIME = {
    ("cli/arguments.py", "{}"),  # _way_out
    ("cli/arguments.py", "shtab, which writes it, is not installed"),
    ("cli/command.py", "cannot read the configuration: {}"),
    ("config/load.py", "must be from 1 to {} with `{}`, not {}"),
    ("config/load.py", "{}"),  # BadValue's own
    ("config/paths.py", "`{}` is no OCI layout: it has no `index.json`"),
    ("config/paths.py", "`{}` {}"),  # _path_hint
    ("config/paths.py", "{}"),  # _path_hint
    # must_be: the kind of the value says it all where there is no hint.
    ("config/reader.py", "must be {}, not {}"),
    ("config/reader.py", "{}"),  # BadValue's own
    ("layer/walk.py", "{}{}"),  # by errno and kind
    ("oci/layout.py", "cannot be written: {}"),  # by errno
    ("oci/output_files.py", "cannot be written: {}"),
    ("oci/manifest.py", "holds no image for {}, only for: {}"),
    ("oci/untrusted.py", "cannot be {}: {}"),  # by errno
    ("oci/untrusted.py", "is no regular file"),  # _AGAIN, or _A_FILE of archives
    ("split/sources/map_file.py", "the map of components cannot be opened: {}"),
    ("split/sources/map_file.py", "{}"),  # _Claims.fail; its place is a line or an entry
    ("config/document.py", "not valid YAML: {}"),
    ("config/document.py", "{}"),
    # _Refusal: its messages are held against this rule where they are made.
    ("split/plan_file.py", "{}"),
}
NO_HINT = {line.strip() for lines in NO_WAY_OUT.values() for line in lines.strip().splitlines()}
# Their whole text is the advice: warnings go without a hint, and `verify` says what is, not what to
# do. Who catches a ValueError has the hint.
WITHOUT_HINTS = {"warn", "_problem", "refuse", "ValueError"}


def test_every_message_says_where() -> None:
    found = list(messages())
    assert len(found) > 100
    for message in found:
        # Who raises these knows no place, who catches them does.
        caught_elsewhere = message.maker in (
            "refuse",
            "BadValue",
            "ValueError",
            "ArgumentTypeError",
            "Cancelled",
        )
        line_of_its_own = message.maker == "warn" and message.what.startswith("{}")
        assert (
            message.where or caught_elsewhere or line_of_its_own or message.what in NOWHERE | {"{}"}
        ), message


def test_every_message_is_one_line_without_a_full_stop() -> None:
    for message in messages():
        for text in (message.what, message.hint):
            assert "\n" not in text, message
            assert not text.endswith((".", "!", " ")), message
        assert message.what, message
        assert not message.what[0].isupper(), message


def test_every_error_has_a_hint_or_a_reason() -> None:
    errors = [
        message
        for message in messages()
        if message.maker not in WITHOUT_HINTS and not message.file.startswith("verify/")
    ]
    for message in errors:
        if message.hint == "{}":
            assert (message.file, message.what) in RUN_TIME, message
        elif not message.hint:
            assert message.what in NO_HINT, message
    assert {message.what for message in errors if not message.hint} == NO_HINT
    assert {(message.file, message.what) for message in errors if message.hint == "{}"} == RUN_TIME


def test_what_a_decoder_refuses_has_a_hint() -> None:
    with pytest.raises(ParentError) as caught, named(Path("blob")):
        raise ValueError("the zstd stream is truncated")
    assert caught.value.lines() == [
        "build-oci: error: blob: the zstd stream is truncated",
        "hint: copy or build the image again; `build-oci verify` lists all that is wrong with it",
    ]


def test_numbers_and_nouns_agree() -> None:
    """`1 layers` is what a plain `{number} layers` says; errors.counted says it rightly. Bytes, MiB
    and levels are never one.
    """
    for message in messages():
        for noun in (
            "images",
            "layers",
            "files",
            "entries",
            "mismatches",
            "manifests",
            "diff_ids",
            "whiteouts",
        ):
            assert f"{{}} {noun}" not in message.what, message
