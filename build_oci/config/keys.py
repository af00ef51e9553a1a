"""What a configuration may say: every key, its kind, its default, its meaning.

The one definition that validation reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from build_oci.records import NamedTuple


class Compression(StrEnum):
    """How layers are compressed; the values are those of the key `compression`."""

    ZSTD = "zstd"
    CHUNKED = "zstd:chunked"
    GZIP = "gzip"
    DISABLED = "disabled"


# What a list of two may be, in either order.
CODEC_PAIRS = ((Compression.GZIP, Compression.ZSTD), (Compression.GZIP, Compression.CHUNKED))


class Codec(NamedTuple):
    """How an image's layers are compressed. `level` is None for `disabled` only."""

    compression: Compression
    level: int | None


class Kind(StrEnum):
    """What the value of a key is."""

    STRING = "a string"
    PATH = "the path of a directory"
    LAYOUT = "the path of an OCI layout: a directory, or an archive (`oci-archive:FILE`)"
    TREE = "the path of a directory, or `{image: LAYOUT}`"
    FILE = "the path of a file"
    BOOLEAN = "`true` or `false`"
    INTEGER = "a whole number"
    CHOICE = "a choice"
    CHOICES = "a choice, or a list of them"
    STRINGS = "a list of strings"
    PATTERNS = "a list of paths or globs"
    OWNER = "`UID:GID`"
    ANNOTATIONS = "a mapping of strings to strings"
    ANYTHING = "anything"
    SECTION = "a mapping"
    SECTIONS = "a list of mappings"
    SOURCES = "a list of sources"
    GLOBS = "a mapping of names to lists of paths"


class Key(NamedTuple):
    """One key of the configuration.

    `keys` are those of a section; `choices` map what is written to what is meant.
    """

    name: str
    kind: Kind
    doc: str
    default: Any = None
    required: bool = False
    minimum: int = 0
    maximum: int | None = None
    choices: Mapping[str | bool, Any] = MappingProxyType({})
    keys: tuple[Key, ...] = ()


_CONFIG = Key(
    "config",
    Kind.CHOICE,
    "`inherit` takes its config over; what `config` says replaces its keys,"
    " and its `Labels` and `Env` by name",
    default=False,
    choices={"replace": False, "inherit": True},
)
PARENT_KEYS = (
    Key("image", Kind.LAYOUT, "the OCI layout to build upon", required=True),
    Key("index", Kind.INTEGER, "which manifest of the layout's index, from 0", default=0),
    Key(
        "trust",
        Kind.BOOLEAN,
        "believe the checksum records in the parent's layers, and the header lists of layers that"
        " build-oci made; `false` computes every digest",
        default=False,
    ),
    _CONFIG,
    Key(
        "recompress",
        Kind.BOOLEAN,
        "bring the parent's layers to `compression`; `false` carries them as they are",
        default=True,
    ),
)
PREVIOUS_KEYS = (
    Key(
        "image",
        Kind.LAYOUT,
        "the OCI layout that an earlier build made:"
        " layers that come out the same are taken from it",
    ),
    Key("index", Kind.INTEGER, "which manifest of the layout's index, from 0", default=0),
    Key(
        "plan",
        Kind.FILE,
        "the plan that an earlier build wrote (`split.plan`); else what the image remembers of it",
    ),
    Key(
        "trust",
        Kind.BOOLEAN,
        "believe what the image says of its layers; `false` reads and verifies them",
        default=False,
    ),
    Key(
        "optional",
        Kind.BOOLEAN,
        "build without it where it does not exist, as at the first build of a series",
        default=False,
    ),
)
PART_KEYS = (
    Key("image", Kind.LAYOUT, "the OCI layout of the image", required=True),
    Key("index", Kind.INTEGER, "which manifest of the layout's index, from 0", default=0),
)
LAYER_KEYS = (*PART_KEYS, _CONFIG)
ITEM_KEYS = (
    Key("add", Kind.PATH, "a directory: what it holds is added, and nothing goes"),
    Key("remove", Kind.STRINGS, "paths of the image below that go", default=()),
    Key("image", Kind.LAYOUT, "an OCI layout: the layers of its image, as they are"),
    Key("index", Kind.INTEGER, "which manifest of that layout's index, from 0", default=0),
    Key(
        "trust",
        Kind.BOOLEAN,
        "believe what that image says of its layers, as `parent.trust` does",
        default=False,
    ),
    Key(
        "recompress",
        Kind.BOOLEAN,
        "bring that image's layers to `compression`; `false` carries them as they are",
        default=True,
    ),
)
# The sources of components that are one word, and those that say more.
PLAIN_SOURCES = ("xattr", "packages")
SOURCE_KEYS = (
    Key("file", Kind.FILE, "a map of paths to components, relative to the current directory"),
    Key("paths", Kind.GLOBS, "components with the paths, or globs, that each owns"),
)
SPLIT_KEYS = (
    Key(
        "max-layers",
        Kind.INTEGER,
        "most layers that the tree becomes",
        default=64,
        minimum=1,
        maximum=499,
    ),
    Key(
        "components",
        Kind.SOURCES,
        "who owns a file: `xattr`, `packages`, `file: PATH`, `paths: {NAME: [GLOB]}`;"
        " the first that claims it",
        default=PLAIN_SOURCES,
    ),
    Key(
        "unclaimed",
        Kind.CHOICE,
        "what to do about files that no source claims",
        default="warn",
        choices={word: word for word in ("warn", "error", "ignore")},
    ),
    Key(
        "plan",
        Kind.FILE,
        "the file to write the plan of the layers to, relative to the current directory",
    ),
)
IMAGE_KEYS = (
    Key("architecture", Kind.STRING, "the processor, as GOARCH names it", required=True),
    Key("os", Kind.STRING, "the operating system, as GOOS names it", required=True),
    Key("variant", Kind.STRING, "the variant of the processor, such as `v8`"),
    Key("os.version", Kind.STRING, "the version of the operating system"),
    Key("os.features", Kind.STRINGS, "what the image demands of the operating system"),
    Key("author", Kind.STRING, "who made the image"),
    Key("comment", Kind.STRING, "what is said of it in the image's history"),
    Key(
        "layer",
        Kind.TREE,
        "the directory to pack, relative to the current directory;"
        " or an image, to pack what it unpacks to",
        keys=LAYER_KEYS,
    ),
    Key("split", Kind.SECTION, "pack `layer` as many layers, by component", keys=SPLIT_KEYS),
    Key(
        "layers",
        Kind.SECTIONS,
        "instead of `layer`: what is put on top of each other, the lowest first",
        default=(),
        keys=ITEM_KEYS,
    ),
    Key(
        "exclude",
        Kind.PATTERNS,
        "what to leave out of `layer`, from its root: `/dir`, `/dir/` (what is in it), `**/*.pyc`",
        default=(),
    ),
    Key("owner", Kind.OWNER, "user and group of every entry of `layer`, whoever owns it on disk"),
    Key("parent", Kind.SECTION, "the image to build upon", keys=PARENT_KEYS),
    Key(
        "previous",
        Kind.SECTION,
        "what an earlier build made of `layer`, to build only what changed",
        keys=PREVIOUS_KEYS,
    ),
    Key("config", Kind.ANYTHING, "passed through untouched into the image config"),
    Key("annotations", Kind.ANNOTATIONS, "annotations of the manifest", default={}),
    Key(
        "index-annotations",
        Kind.ANNOTATIONS,
        "annotations of the manifest's descriptor in the index",
        default={},
    ),
)
TOP_KEYS = (
    Key(
        "compression",
        Kind.CHOICES,
        'how layers are compressed; `[gzip, zstd]` or `[gzip, "zstd:chunked"]` writes each image'
        " twice, from one packing",
        default=(Compression.ZSTD,),
        choices={c.value: c for c in Compression},
    ),
    Key(
        "gzip",
        Kind.CHOICE,
        "the former spelling of `compression`",
        choices={
            "gzip": Compression.GZIP,
            "disabled": Compression.DISABLED,
            True: Compression.GZIP,
            False: Compression.DISABLED,
        },
    ),
    Key(
        "compression-level",
        Kind.INTEGER,
        "zstd 1 to 22 (default 3), gzip 1 to 9 (default 5); with both, one level for both",
        minimum=1,
        maximum=22,
    ),
    Key("skip-xattrs", Kind.BOOLEAN, "read no extended attributes at all", default=False),
    Key(
        "trust-checksum-xattrs",
        Kind.CHOICE,
        "believe `user.checksum.sha256` instead of hashing the file: on FUSE, where it goes at the"
        " first write, everywhere, or nowhere",
        choices={"auto": None, True: True, False: False},
    ),
    Key(
        "hardlinks",
        Kind.CHOICE,
        "`copy` makes every name a file of its own",
        default=True,
        choices={"preserve": True, "copy": False},
    ),
    # The maximum keeps the bytes within 63 bits.
    Key(
        "prefetch-limit-mb",
        Kind.INTEGER,
        "most MiB of file data in memory at once",
        default=512,
        minimum=1,
        maximum=(1 << 43) - 1,
    ),
    Key("mode", Kind.CHOICE, "the format of the image", default="oci", choices={"oci": "oci"}),
    Key("annotations", Kind.ANNOTATIONS, "annotations of the index", default={}),
    Key(
        "ref-name",
        Kind.STRING,
        "puts the images into an image index of their own, which `index.json` names so",
    ),
    Key("images", Kind.SECTIONS, "the images to build", default=(), keys=IMAGE_KEYS),
)
SECTIONS = {
    "at the top of the document": TOP_KEYS,
    "of an image": IMAGE_KEYS,
    "of `parent`": PARENT_KEYS,
    "of `previous`": PREVIOUS_KEYS,
    "of an item of `layers`": ITEM_KEYS,
    "of `split`": SPLIT_KEYS,
    "of an item of `components`": SOURCE_KEYS,
}

# What the Go toolchain knows (`go tool dist list`), which is what registries and clients compare
# with.
ARCHITECTURES = (
    "386 amd64 arm arm64 loong64 mips mips64 mips64le mipsle ppc64 ppc64le riscv64 s390x wasm"
)
SYSTEMS = (
    "aix android darwin dragonfly freebsd illumos ios js linux netbsd openbsd plan9 solaris wasip1"
    " windows"
)
PLATFORM_ALIASES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "x64": "amd64",
    "aarch64": "arm64",
    "arm64v8": "arm64",
    "armv7l": "arm",
    "armhf": "arm",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
    "x86": "386",
    "loongarch64": "loong64",
    "mips64el": "mips64le",
    "mipsel": "mipsle",
    "powerpc64le": "ppc64le",
    "ppc64el": "ppc64le",
    "macos": "darwin",
}
