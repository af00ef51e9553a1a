"""The configuration (contract: config-keys, config-epoch), with SOURCE_DATE_EPOCH."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from places import REAL_CONFIGS

from build_oci.config.keys import Compression
from build_oci.config.load import load_config, source_date_epoch
from build_oci.config.model import BuildConfig
from build_oci.config.paths import check_paths
from build_oci.errors import ConfigError, UsageError

IMAGE = "images:\n- os: linux\n  architecture: amd64\n"


def load(text: str | bytes) -> BuildConfig:
    return load_config(text, source="config.yaml")


def problems(text: str | bytes) -> list[str]:
    """Every problem of TEXT as `WHERE: WHAT` with its hint; there must be one."""
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert caught.value.exit_status == 2
    return [f"{problem} | {problem.hint}" for problem in caught.value.problems]


@pytest.fixture(params=["C", "Python"])
def _both_loaders(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "Python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)


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


@pytest.mark.usefixtures("_both_loaders")
def test_half_surrogate() -> None:
    (problem,) = problems(IMAGE + '  layer: "\\ud800"')
    assert "config.yaml:4" in problem


@pytest.mark.parametrize("text", [b"mode: oci\nx: \xff", b"mode: oci\nx: \xed\xa0\x80"])
def test_no_utf8(text: bytes) -> None:
    (problem,) = problems(text)
    assert re.match("config.yaml:2: byte 0x.. at offset 13 is not UTF-8", problem)


@pytest.mark.usefixtures("_both_loaders")
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16"])
def test_byte_order_mark(codec: str) -> None:
    """YAML 1.1 knows these encodings by their marks."""
    text = (IMAGE + "  comment: ü\n").encode(codec)
    assert (
        load(text).images[0].comment
        == load(text.decode("utf-8" if codec == "utf-8-sig" else codec)).images[0].comment
        == "ü"
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


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "gzp: gzip\ngzip: gzip\n" + IMAGE,
            "config.yaml:1: gzp: `gzp` is not a key; did you mean `gzip`?",
        ),
        (
            IMAGE + "  tags: [a]",
            "config.yaml:4: images[0].tags: `tags` is not a key, and is ignored",
        ),
        (
            IMAGE + "  gzip: disabled",
            "images[0].gzip: `gzip` is not a key here; it is one at the top of the document",
        ),
        (
            IMAGE + "  config: {Cmd: /bin/sh}",
            "images[0].config.Cmd: must be a list of strings: clients cannot read the image",
        ),
        (IMAGE + "  config: {Env: {A: b}}", "images[0].config.Env: must be a list of strings"),
        (IMAGE + "  config: {Env: [A]}", "images[0].config.Env[0]: has no `=`"),
        (
            IMAGE + "  config: {Labels: {a: 1}}",
            "images[0].config.Labels: must be a mapping of strings to strings",
        ),
        (
            IMAGE + "  config: {ExposedPorts: [80]}",
            "images[0].config.ExposedPorts: must be a mapping of names",
        ),
        (
            IMAGE + "  config: {cmd: [a]}",
            "images[0].config.cmd: is no name that clients know; did you mean `Cmd`?",
        ),
        (
            IMAGE + "  config: {working_dir: /}",
            (
                "images[0].config.working_dir: is no name that clients know; did you mean"
                " `WorkingDir`?"
            ),
        ),
        (
            "ref-name: a b\n" + IMAGE,
            "config.yaml:1: ref-name: `a b` is not a name of the image-spec",
        ),
        (
            IMAGE
            + "  index-annotations: {org.opencontainers.image.ref.name: x}\n"
            + IMAGE[IMAGE.index("- ") :]
            + "  index-annotations: {org.opencontainers.image.ref.name: x}",
            "`x` is the org.opencontainers.image.ref.name of images[0] too",
        ),
        (
            "compression: disabled\ncompression-level: 3\n" + IMAGE,
            "config.yaml:2: compression-level: has no effect",
        ),
        (
            "images:\n- {os: linux, architecture: x86_64}",
            (
                "images[0].architecture: `x86_64` is not a name that clients know; did you mean"
                " `amd64`?"
            ),
        ),
        ("images:\n- {os: linux, architecture: aarch64}", "did you mean `arm64`?"),
        (
            "images:\n- {os: Linux, architecture: amd64}",
            "images[0].os: `Linux` is not a name that clients know; did you mean `linux`?",
        ),
        ("images: []", "images: no images to build"),
        ("mode: oci", "config.yaml:1: no images to build"),
        (
            IMAGE + "  comment:",
            "config.yaml:4: images[0].comment: has no value, so it counts as not given",
        ),
        (IMAGE + "  config: [a]", "images[0].config: is not a mapping"),
    ],
)
def test_warning(text: str, warning: str) -> None:
    """contract: config-unknown-keys. An unknown key is a warning with the nearest known key; so is
    what works but cannot be meant.
    """
    (found,) = load(text).warnings
    assert warning in found


@pytest.mark.usefixtures("_both_loaders")
def test_config_untouched() -> None:
    """contract: config-passthrough.
    `config` is passed through untouched, as JSON would write it; a date stays the string that was
    written."""
    text = (
        "{null: 1, true: 2, 3: 4, 1.5: ~, d: 2024-01-01 10:00:00, o: 010, s: 1:30, y: yes, b: !!str"
        " 1, =: '=', e: {}, z: [[]], n: \"\\0\"}"
    )
    (image,) = load(f"{IMAGE}  config: {text}").images
    assert list(image.config.items()) == [
        ("null", 1),
        ("true", 2),
        ("3", 4),
        ("1.5", None),
        ("d", "2024-01-01 10:00:00"),
        ("o", 8),
        ("s", 90),
        ("y", True),
        ("b", "1"),
        ("=", "="),
        ("e", {}),
        ("z", [[]]),
        ("n", "\0"),
    ]
    null = load(f"{IMAGE}  config:").images[0]
    assert (null.has_config, null.config) == (True, None)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.text(st.characters(codec="utf-8"))
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(json_values)
def test_config_like_the_library(value: Any) -> None:
    """contract: config-passthrough. Whatever is inside `config` comes out as the YAML library
    itself reads it.
    """
    text = yaml.safe_dump({"images": [{"os": "linux", "architecture": "amd64", "config": value}]})
    assert load(text).images[0].config == yaml.safe_load(text)["images"][0]["config"]


@pytest.mark.usefixtures("_both_loaders")
def test_aliases_and_merge_keys() -> None:
    text = """
other: &one {author: one, os: linux, config: {a: 1}}
more: &two {author: two, architecture: arm64, comment: two}
images:
- <<: [*one, *two]
  comment: own
  config: {<<: {x: 1, y: 2}, y: 3, '<<': 4}
- *one
"""
    assert "images[1]: the key `architecture` is missing" in problems(text)[0]
    image = load(text.replace("- *one", "")).images[0]
    assert (image.author, image.os, image.architecture, image.comment) == (
        "one",
        "linux",
        "arm64",
        "own",
    )
    assert image.config == {"x": 1, "y": 3, "<<": 4}


@pytest.mark.parametrize("leaf", ["[]", "x", "'" + "x" * 100_000 + "'"])
def test_alias_bomb(leaf: str) -> None:
    lines = [f"a0: &a0 {leaf}"] + [
        f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 60)
    ]
    (problem,) = problems("\n".join(lines))
    assert "grows out of bounds" in problem


def test_merge_bomb() -> None:
    lines = ["a0: &a0 {k: v}"] + [
        f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 60)
    ]
    (problem,) = problems("\n".join(lines))
    assert "grows out of bounds" in problem


def test_aliases_cannot_stack_up() -> None:
    lines = ["a0: &a0 []"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 200)]
    assert "nested more than 100 levels deep" in problems("\n".join(lines))[0]


def test_too_large() -> None:
    assert "larger than 4 MiB" in problems(b"#" * (4 << 20) + b"\n")[0]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("1700000000", 1700000000), ("007", 7), ("253402300799", 253402300799)],
)
def test_source_date_epoch(text: str, seconds: int) -> None:
    assert source_date_epoch({"SOURCE_DATE_EPOCH": text}) == seconds


def test_source_date_epoch_unset() -> None:
    assert source_date_epoch({}) is None
    assert source_date_epoch({"SOURCE_DATE_EPOCH": ""}) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "comression: gzip\n" + IMAGE,
            "config.yaml:1: comression: `comression` is not a key | did you mean `compression`?",
        ),
        ("imags: []", "config.yaml:1: imags: `imags` is not a key | did you mean `images`?"),
        (
            IMAGE + "  layr: a",
            "config.yaml:4: images[0].layr: `layr` is not a key | did you mean `layer`?",
        ),
        (
            IMAGE + "  parent: {image: a, indx: 1}",
            "images[0].parent.indx: `indx` is not a key | did you mean `index`?",
        ),
    ],
)
def test_slip_of_a_key(text: str, problem: str) -> None:
    """contract: config-unknown-keys. A near miss of a key that is not given is an error, since the
    document then means something else.
    """
    assert problem in problems(text)[0]


def test_pairs_of_surrogate_escapes() -> None:
    """JSON writes characters above U+FFFF as two escapes, which YAML refuses; only in JSON are they
    one character.
    """
    document = {
        "images": [
            {
                "os": "linux",
                "architecture": "amd64",
                "comment": "\U0001f680 \\ud83d\\ude80 \\\U0001f680",
            }
        ]
    }
    assert load(json.dumps(document)).images[0].comment == document["images"][0]["comment"]
    assert load(IMAGE + "  comment: '\\ud83d\\ude80'").images[0].comment == "\\ud83d\\ude80"


@pytest.mark.parametrize(
    "number", ["1" + ":0" * 5000, "9" * 5000, "0x" + "f" * 5000, "1" + ":0" * 5000 + ".5"]
)
def test_numbers_without_end(number: str) -> None:
    assert "cannot be read as" in problems(f"compression-level: {number}\n" + IMAGE)[0]


def test_too_many_nodes() -> None:
    """Four megabytes of `a,` are two million nodes, of which each takes hundreds of bytes."""
    assert "too many keys and values" in problems("a: [" + "a," * 200_000 + "]")[0]


@pytest.mark.parametrize(
    "text",
    ["-1", "+1", "1.5", " 1", "1\n", "1_0", "0x10", "now", "\u0661", "253402300800", "9" * 5000],
)
def test_source_date_epoch_wrong(text: str) -> None:
    """contract: config-epoch. SOURCE_DATE_EPOCH that is not a whole number >= 0 is an error."""
    with pytest.raises(UsageError, match=r"^SOURCE_DATE_EPOCH: must be a whole number"):
        source_date_epoch({"SOURCE_DATE_EPOCH": text})


def test_check_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """contract: cli-check.
    `--check` looks at every path; contract: config-layer-path: a symlink to a directory is
    followed, relative to the current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tree").mkdir()
    (tmp_path / "link").symlink_to("tree")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "file").touch()
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "index.json").touch()

    def check(*layers: str, parent: str = "base") -> None:
        image = "- {os: linux, architecture: amd64, layer: '%s', parent: {image: '%s'}}\n"
        check_paths(load("images:\n" + "".join(image % (layer, parent) for layer in layers)))

    check("tree", "link", str(tmp_path / "tree"), parent=str(tmp_path / "base"))
    with pytest.raises(ConfigError) as caught:
        check("nothing", "file", "dangling", "tree")
    assert caught.value.exit_status == 2
    assert [str(problem) for problem in caught.value.problems] == [
        (
            "config.yaml:2: images[0].layer: cannot use the directory `nothing`: No such file or"
            " directory"
        ),
        "config.yaml:3: images[1].layer: cannot use the directory `file`: Not a directory",
        (
            "config.yaml:4: images[2].layer: cannot use the directory `dangling`: No such file or"
            " directory"
        ),
    ]
    for parent, what in (
        ("gone", "No such file"),
        ("file", "Not a directory"),
        ("tree", "no `index.json`"),
    ):
        with pytest.raises(ConfigError, match=f"images.0..parent.image: .*{what}"):
            check("tree", parent=parent)


def test_unlistable_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that may be entered but not listed; root, who may list all, looks at it as
    nobody.
    """
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    (tmp_path / "closed").mkdir(mode=0o311)
    config = load(IMAGE + "  layer: closed")
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        with pytest.raises(
            ConfigError, match=r"layer: cannot use the directory `closed`: Permission denied"
        ):
            check_paths(config)
    finally:
        if root:
            os.seteuid(0)
