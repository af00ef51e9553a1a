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

import build_oci

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
# ValueErrors that become a ParentError naming the blob (oci.untrusted.named), or a finding of
# `verify`.
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


def template(node: ast.expr | None) -> str:
    match node:
        case None:
            return ""
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(template(value) for value in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return template(left) + template(right)
        case _:
            return "{}"


def messages() -> Iterator[Message]:
    for path in sorted(PACKAGE.rglob("*.py")):
        file = str(path.relative_to(PACKAGE))
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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
                template(found.get("what")),
                template(found.get("hint")),
            )


# Messages without a hint, by why there is none. `{}` alone: the text comes from elsewhere, where it
# is held against this rule itself.
NO_WAY_OUT = {
    "an image of somebody else that its builder alone can mend; the blob is named": """
        the gzip stream is truncated
        the zstd stream is truncated
        the zstd stream is corrupt (bad block header)
        the zstd stream is corrupt (a frame ends early)
        the zstd stream is corrupt ({})
        the gzip stream is corrupt ({})
        the gzip stream is corrupt (reserved flags are set)
        something that is not gzip follows the gzip stream
        something that is not zstd follows the zstd stream
        this is not a zstd stream
        the members of this image's layers need more memory than so many may have
        has more than {} indexes inside
        is an index within an index, {} deep
        has no list “rootfs.diff_ids”: it is no image config
        names {}, but the manifest has {}
        its history is no list of objects
        is a layer of the type “{}”, which build-oci cannot read
        its archive has the digest {}:{}, but the image's config says {}
        has {} bytes, which is too large for a document
        has too many values for a document
        is said to have {} bytes, which is too large for a document
        is no regular file
        is no JSON document
        is no JSON object
        has no list “{}”
        is no descriptor
        “{}” is no digest (sha256 or sha512 and its hexadecimal digits)
        “{}” is no size
        its mediaType is no string
        its platform is no object
        its annotations are no strings
        leads to no image
        leads to more images than {}
    """,
    "the system gives the reason": """
        cannot be opened: {}
        cannot be read: {}
    """,
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
        unknown compression {}
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
    ("cli/command.py", "{}"),  # a warning under --strict
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
    ("oci/archive_source.py", "at byte {}: {}"),  # _AGAIN
    ("oci/archive_source.py", "is missing"),  # _AGAIN
    ("oci/archive_source.py", "is no archive of an image layout: it has no index.json"),
    ("oci/archive_source.py", "is no archive of an image layout"),
    ("oci/archive_source.py", "is in the archive twice"),  # _AGAIN
    ("oci/archive_source.py", "has more members than {}"),  # _AGAIN
    ("oci/layout.py", "cannot be written: {}"),  # by errno
    ("oci/output_files.py", "cannot be written: {}"),
    ("oci/manifest.py", "holds no image for {}, only for: {}"),
    ("oci/untrusted.py", "has {} bytes, but its descriptor says {}"),
    ("oci/untrusted.py", "is damaged: its content has the digest {}:{}"),
    ("oci/untrusted.py", "is missing"),
    ("split/sources/map_file.py", "the map of components cannot be opened: {}"),
    ("split/sources/map_file.py", "{}"),  # _Claims.fail; its place is a line or an entry
    ("config/document.py", "not valid YAML: {}"),
    ("config/document.py", "{}"),
    # _Refusal: its messages are held against this rule where they are made.
    ("split/plan_file.py", "{}"),
}
NO_HINT = {line.strip() for lines in NO_WAY_OUT.values() for line in lines.strip().splitlines()}
# Their whole text is the advice: warnings go without a hint, and `verify` says what is, not what to
# do.
WITHOUT_HINTS = {"warn", "_problem", "refuse"}


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
