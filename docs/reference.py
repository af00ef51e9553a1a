"""Writes configuration.md from the table of keys that the build itself reads: `python
docs/reference.py > docs/configuration.md`.
"""

from __future__ import annotations

from build_oci.config.keys import (
    IMAGE_KEYS,
    ITEM_KEYS,
    LAYER_KEYS,
    PARENT_KEYS,
    PREVIOUS_KEYS,
    SPLIT_KEYS,
    TOP_KEYS,
    Key,
    Kind,
)

INTRODUCTION = """\
# Configuration

One YAML 1.1 document, read from standard input or from `-f FILE`. All of its problems are \
reported together, with line and key. An unknown
key is a warning that names the nearest known one; a known key with a wrong value is an error, and \
nothing is written. Duplicate keys are
errors. A date stays the string that was written.

Editors check and complete it with the schema that `build-oci --schema` prints:

```yaml
# yaml-language-server: $schema=build-oci.schema.json
```
"""


def _value(key: Key) -> str:
    if key.kind is Kind.CHOICES:
        return ", ".join(f"`{choice}`" for choice in key.choices) + ", or a list of two"
    if key.kind is Kind.CHOICE:
        return ", ".join(f"`{str(choice).lower()}`" for choice in key.choices)
    if key.kind is Kind.INTEGER:
        return (
            f"a whole number, {key.minimum} or more"
            if key.maximum is None or key.maximum > 1 << 40
            else f"{key.minimum} to {key.maximum}"
        )
    return key.kind.value + (", required" if key.required else "")


def _default(key: Key) -> str:
    written = (
        [choice for choice, meant in key.choices.items() if meant == key.default]
        if key.choices
        else []
    )
    default = written[0] if written else key.default
    if isinstance(default, tuple) and default:
        return ", ".join(f"`{each}`" for each in default)
    return "" if default in (None, {}, ()) else f"`{str(default).lower()}`"


def _table(keys: tuple[Key, ...]) -> str:
    rows = [f"| `{key.name}` | {_value(key)} | {_default(key)} | {key.doc} |" for key in keys]
    return "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows]) + "\n"


def reference() -> str:
    """The whole page."""
    parts = [
        INTRODUCTION,
        "## At the top\n",
        _table(TOP_KEYS),
        "`compression` and `gzip` together must agree.\n",
        "## An image\n",
        _table(IMAGE_KEYS),
        (
            "A pattern of `exclude` starts at the root of the tree, with a slash or without. `*`"
            " and `?` stand for any characters and for one, `[a-z]` and `[!a-z]` for one of a set"
            " or out of it, a component `**` for any number of directories, none included; a"
            " backslash takes such a meaning away. An excluded directory is not read. A pattern"
            " that matches nothing is a warning. To the rest of the build an excluded name is not"
            " in the tree: if the parent has it, the layer hides it.\n"
        ),
        (
            "`config` may hold anything: `Cmd`, `Env`, `Labels` and so on, or keys that no one"
            " knows yet. The parent's `config` is inherited with `parent.config: inherit` only:"
            " then `null` takes a key away, or a name of `Labels` or `Env`, and `Env` may be"
            " written as a mapping too.\n"
        ),
        "## `parent`\n",
        _table(PARENT_KEYS),
        "## `previous`\n",
        _table(PREVIOUS_KEYS),
        "The page [Building again](previous.md) says more.\n",
        "## `layer`, where it is an image\n",
        _table(LAYER_KEYS),
        "## Items of `layers`\n",
        _table(ITEM_KEYS),
        (
            "An item has `image`, or `add`, `remove` or both. The page [Late edits](late-edits.md)"
            " says more.\n"
        ),
        "## `split`\n",
        _table(SPLIT_KEYS),
        "The page [Many layers](split.md) says more.\n",
        "## Environment\n",
        (
            "| variable | meaning |\n|---|---|\n| `SOURCE_DATE_EPOCH` | the time of every file and"
            " of the image, in seconds since 1970 |\n| `BUILD_OCI_SHA256` | demands one SHA-256"
            " kernel for files: `scalar`, `avx2`, `avx512`, `sha-ni`,"
            " `sha-ni-avx512`, `armv8` |\n|"
            " `BUILD_OCI_DEBUG` | `1` adds the traceback to an error |\n"
        ),
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    print(reference(), end="")
