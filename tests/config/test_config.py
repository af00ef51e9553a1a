"""The keys of the configuration (contract: config-keys): what they mean, and what is wrong with
them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from configs import IMAGE, _both_loaders, load, problems
from places import REAL_CONFIGS

from build_oci.config.keys import Compression

__all__ = ["_both_loaders"]


def real_documents() -> list[Path]:
    return sorted(REAL_CONFIGS.glob("*.yaml")) if REAL_CONFIGS.is_dir() else []


@pytest.mark.parametrize("document", real_documents(), ids=lambda path: path.stem)
def test_real_document(document: Path) -> None:
    """contract: config-real-documents. Every document that projects really use works, or is refused
    for a stated reason.
    """
    text = document.read_text().replace("%{go-arch}", "amd64")
    text = re.sub(r"%\{[^}]*\}|\$\([^)]*\)", "word", text)
    if re.search("^mode: docker", text, re.M):
        (problem,) = problems(text)
        assert problem.startswith("config.yaml:2: mode: ")
        assert "dropped" in problem
        return
    config = load(text)
    written = yaml.safe_load(text)
    expected = {None: "zstd", True: "gzip", False: "disabled"}.get(
        written.get("gzip"), written.get("gzip")
    )
    assert config.codecs[0].compression == written.get("compression", expected)
    for image, source in zip(config.images, written["images"], strict=True):
        assert (image.layer, image.comment, image.os) == (
            source["layer"],
            source["comment"],
            "linux",
        )
        assert image.config == source.get("config")
        assert image.has_config is ("config" in source)
        assert image.index_annotations == source.get("index-annotations", {})
        assert (image.parent.image if image.parent else None) == source.get("parent", {}).get(
            "image"
        )
    stray = {key for image in written["images"] for key in image} & {"created", "tags", "labels"}
    assert [
        any(f"`{key}` is not a key" in warning for warning in config.warnings) for key in stray
    ] == [True] * len(stray)
    assert len(config.warnings) == len(stray)
    if document.name.startswith("gbm-2025b-"):
        assert config.codecs == ((Compression.DISABLED, None),)


def test_defaults() -> None:
    """contract: config-keys. Both tables."""
    config = load(IMAGE)
    (image,) = config.images
    assert (config.codecs, config.prefetch_limit) == ((("zstd", 3),), 512 << 20)
    assert (config.skip_xattrs, config.trust_checksum_xattrs, config.preserve_hardlinks) == (
        False,
        None,
        True,
    )
    assert (config.annotations, config.warnings) == ({}, ())
    assert (
        image.variant,
        image.os_version,
        image.os_features,
        image.author,
        image.comment,
        image.layer,
    ) == (None,) * 6
    assert (
        image.parent,
        image.has_config,
        image.config,
        image.annotations,
        image.index_annotations,
    ) == (None, False, None, {}, {})
    assert image.where == "config.yaml:2: images[0]"


def test_every_key() -> None:
    config = load("""
compression: gzip
gzip: true
compression-level: 9
skip-xattrs: yes
trust-checksum-xattrs: off
hardlinks: copy
prefetch-limit-mb: 64
mode: oci
annotations: {top: '1'}
images:
- architecture: arm64
  os: linux
  variant: v8
  os.version: '10'
  os.features: [win32k]
  author: somebody
  comment: 2024-01-02
  layer: tree
  parent: {image: base, index: 2, recompress: false, trust: true}
  config: {Cmd: [a]}
  annotations: {of: manifest}
  index-annotations: {of: descriptor}
""")
    (image,) = config.images
    assert (config.codecs, config.prefetch_limit, config.annotations) == (
        (("gzip", 9),),
        64 << 20,
        {"top": "1"},
    )
    assert (config.skip_xattrs, config.trust_checksum_xattrs, config.preserve_hardlinks) == (
        True,
        False,
        False,
    )
    assert (image.architecture, image.os, image.variant, image.os_version, image.os_features) == (
        "arm64",
        "linux",
        "v8",
        "10",
        ("win32k",),
    )
    assert (image.author, image.comment, image.layer, image.has_config, image.config) == (
        "somebody",
        "2024-01-02",
        "tree",
        True,
        {"Cmd": ["a"]},
    )
    assert (image.annotations, image.index_annotations) == (
        {"of": "manifest"},
        {"of": "descriptor"},
    )
    assert image.parent is not None
    assert (
        image.parent.image,
        image.parent.number,
        image.parent.recompress,
        image.parent.trust,
    ) == ("base", 2, False, True)
    assert (image.layer_where, image.parent.where) == (
        "config.yaml:19: images[0].layer",
        "config.yaml:20: images[0].parent.image",
    )
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("text", "compression", "level"),
    [
        ("gzip: gzip", "gzip", 5),
        ("gzip: True", "gzip", 5),
        ("gzip: no", "disabled", None),
        ("gzip: disabled", "disabled", None),
        ("gzip: disabled\ncompression: disabled", "disabled", None),
        ("compression: gzip", "gzip", 5),
        ("compression-level: 22", "zstd", 22),
        ("gzip: true\ncompression-level: 1", "gzip", 1),
    ],
)
def test_compression(text: str, compression: str, level: int | None) -> None:
    """contract: config-compression. `gzip` is the original's key, levels have a default each."""
    config = load(f"{text}\n{IMAGE}")
    assert (config.codecs, config.warnings) == (((compression, level),), ())


@pytest.mark.parametrize(
    ("text", "codecs"),
    [
        ("compression: [gzip, zstd]", (("gzip", 5), ("zstd", 3))),
        ("compression: [zstd, gzip]", (("gzip", 5), ("zstd", 3))),
        ('compression: ["zstd:chunked", gzip]', (("gzip", 5), ("zstd:chunked", 3))),
        ("compression: [gzip, zstd]\ncompression-level: 9", (("gzip", 9), ("zstd", 9))),
        ("compression: [disabled]", (("disabled", None),)),
        ("compression: [gzip]\ngzip: true", (("gzip", 5),)),
    ],
)
def test_codecs(text: str, codecs: tuple[tuple[str, int | None], ...]) -> None:
    """contract: codec-chunked. Gzip stands first in the index, whatever the order in the
    document.
    """
    config = load(f"{text}\n{IMAGE}")
    assert (config.codecs, config.warnings) == (codecs, ())


WRONG = {
    "compression: zsdt": (
        "config.yaml:1: compression: must be one of `zstd`, `zstd:chunked`, `gzip`, `disabled`, not"
        " the string `zsdt`"
    ),
    "compression: false": "compression: must be one of",
    "compression: [gzip, zsdt]": "config.yaml:1: compression[1]: must be one of",
    "compression: []": (
        "compression: a list names `gzip` and one of `zstd`, `zstd:chunked`, or one compression"
        " alone"
    ),
    'compression: [zstd, "zstd:chunked"]': "compression: a list names `gzip` and one of",
    "compression: [gzip, disabled]": "compression: a list names `gzip` and one of",
    "compression: [gzip, gzip]": "compression: a list names `gzip` and one of",
    "compression: [gzip, zstd]\ncompression-level: 10": "must be from 1 to 9 with `gzip`, not 10",
    "compression: [gzip, zstd]\ngzip: true": "means `gzip`, but `compression` says `gzip, zstd`",
    "gzip: 1": "gzip: must be one of `gzip`, `disabled`, `true`, `false`, not the number `1`",
    "gzip: 'False'": "without quotes",
    "gzip: zstd": "gzip: must be one of",
    "compression: gzip\ngzip: disabled": (
        "config.yaml:2: gzip: means `disabled`, but `compression` says `gzip`"
    ),
    "compression-level: fast": (
        "compression-level: must be a whole number from 1 to 22, not the string `fast`"
    ),
    "compression-level: 0": "from 1 to 22, not the number `0`",
    "compression-level: 23": "from 1 to 22, not the number `23`",
    "compression-level: 3.0": "from 1 to 22, not the number `3.0`",
    "compression-level: true": "from 1 to 22, not the boolean `true`",
    "gzip: true\ncompression-level: 10": (
        "config.yaml:2: compression-level: must be from 1 to 9 with `gzip`, not 10"
    ),
    "skip-xattrs: 'true'": (
        "skip-xattrs: must be `true` or `false`, not the string `true` | write it without quotes"
    ),
    "skip-xattrs: 1": "skip-xattrs: must be `true` or `false`",
    "hardlinks: keep": "hardlinks: must be one of `preserve`, `copy`",
    "prefetch-limit-mb: 0": "prefetch-limit-mb: must be a whole number from 1",
    "prefetch-limit-mb: 9223372036854775807": "prefetch-limit-mb: must be",
    "mode: docker": "mode: the format `docker` is not written: it was dropped",
    "mode: tar": "mode: must be one of `oci`",
    "annotations: {a: 1}": (
        'config.yaml:1: annotations.a: must be a string, not the number `1` | quote it: "1"'
    ),
    "annotations: {a: yes}": (
        'annotations.a: must be a string, not the boolean `yes` | quote it: "yes"'
    ),
    "annotations: {a: }": "annotations.a: must be a string, not nothing",
    "annotations: {a: [b]}": "annotations.a: must be a string, not a list",
    "annotations: {1: b}": "annotations.1: the key of an annotation must be a string",
    "annotations: [a]": "annotations: must be a mapping of strings to strings, not a list",
    "images: {os: linux}": "images: must be a list of mappings, not a mapping",
    "images: [x, ]": "images[0]: must be a mapping, not the string `x`",
    "images: [~]": "images[0]: must be a mapping, not nothing",
    "images:\n- os: linux": "config.yaml:2: images[0]: the key `architecture` is missing",
    "images:\n- os: linux\n  architecture:": "config.yaml:3: images[0].architecture: has no value",
    "images:\n- {os: linux, architecture: ''}": "images[0].architecture: is empty",
    IMAGE + "  layer: [a]": "config.yaml:4: images[0].layer: must be a string, not a list",
    IMAGE + "  layer: 1": 'images[0].layer: must be a string, not the number `1` | quote it: "1"',
    IMAGE + "  layer: ''": "images[0].layer: is empty",
    IMAGE + '  layer: "a\\0b"': "images[0].layer: a path cannot hold a NUL",
    IMAGE + "  parent: base": "images[0].parent: must be a mapping, not the string `base`",
    IMAGE + "  parent: {}": "config.yaml:4: images[0].parent: the key `image` is missing",
    IMAGE + "  parent: {image: a, index: -1}": (
        "images[0].parent.index: must be a whole number 0 or more"
    ),
    IMAGE + "  parent: {image: a, recompress: gzip}": (
        "images[0].parent.recompress: must be `true` or `false`"
    ),
    IMAGE + "  os.version: 10.0": (
        'images[0].os.version: must be a string, not the number `10.0` | quote it: "10.0"'
    ),
    IMAGE + "  os.features: win32k": "images[0].os.features: must be a list of strings",
    IMAGE + "  os.features: [1]": "images[0].os.features[0]: must be a string",
    IMAGE + "  layer: a\n  layer: b": (
        "config.yaml:5: images[0].layer: the key `layer` stands here twice, first in line 4"
    ),
    IMAGE + "  config: {a: {b: 1, b: 2}}": "images[0].config.a.b: the key `b` stands here twice",
    IMAGE + "  config: {1: a, '1': b}": "images[0].config.1: the key `1` stands here twice",
    IMAGE + "  config: {a: .nan}": "images[0].config.a: `.nan` is a number that JSON cannot write",
    IMAGE + "  config: [-.inf]": "images[0].config[0]: `-.inf` is a number that JSON cannot write",
    IMAGE + "  config: {[a]: b}": "images[0].config: a key must be a string, not a list",
    IMAGE + f"  config: 0x{'f' * 6000}": "cannot be read as int",
    IMAGE + "  config: !!binary aGk=": "images[0].config: the tag `!!binary` has no meaning here",
    IMAGE + "  config: !!python/object/apply:os.system [x]": (
        "the tag `!!python/object/apply:os.system` has no meaning here"
    ),
    IMAGE + "  config: !!int x": "`x` cannot be read as int",
    IMAGE + "  config: &a [*a]": (
        "images[0].config[0]: an alias stands inside what it is an alias of"
    ),
    "&a {images: [], <<: *a}": "an alias stands inside what it is an alias of",
    "<<: 1": "`<<` merges mappings, not the number `1`",
    "other: !!python/name:os.system ''": "the tag `!!python/name:os.system` has no meaning here",
    "": "config.yaml: the configuration is empty",
    "# nothing\n": "config.yaml: the configuration is empty",
    "~": "config.yaml:1: must be a mapping",
    "- a": "config.yaml:1: must be a mapping, with `images` among its keys, not a list",
    "mode: oci\n---\nmode: oci": "config.yaml:2: a second document begins here",
    "mode: oci\na: b: c": "config.yaml:2:5: not valid YAML: mapping values are not allowed",
    "mode: [": "config.yaml:1:8: not valid YAML",
    "images:\n\t- x": "never with tabs",
    "mode: %{mode}": (
        "config.yaml:1:7: not valid YAML: while scanning for the next token, found character"
    ),
    "mode: *x": "not valid YAML: found undefined alias",
    "mode: oci\nx: \x07": "config.yaml:2:4: the character U+0007 cannot stand in YAML",
    "x: \ud800": "config.yaml:1:4: the character U+D800 cannot stand in YAML",
    "[" * 100_000: "config.yaml:1: nested more than 100 levels deep",
    "? " * 100_000: "config.yaml:1: nested more than 100 levels deep",
}


@pytest.mark.usefixtures("_both_loaders")
@pytest.mark.parametrize("text", WRONG, ids=lambda text: text.removeprefix(IMAGE)[:40])
def test_wrong(text: str) -> None:
    """contract: config-values.
    A known key with a wrong value is an error; contract: cli-errors: with the file, the line and
    the key's path."""
    (problem,) = problems(text)
    # The two loaders word broken YAML alike up to here and there a column.
    expected = WRONG[text]
    assert expected in problem or (
        "not valid YAML" in expected
        and re.search("config.yaml:[12]:[0-9]+: not valid YAML", problem)
    )


def test_problems_come_together() -> None:
    """contract: config-problems-together. All problems in one document are reported together, here
    in its order.
    """
    found = problems(
        "compression: no\nskip-xattrs: 7\nimages:\n- os: linux\n  layer: []\n- 5\nhardlinks: x\n"
    )
    assert [line.split(": ")[0] for line in found] == [
        f"config.yaml:{line}" for line in (1, 2, 4, 5, 6, 7)
    ]
