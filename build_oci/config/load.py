"""The configuration: YAML text -> BuildConfig, frozen and validated, every problem with its
line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

from build_oci.codec.table import DEFAULT_LEVELS, HIGHEST_LEVELS
from build_oci.config.document import (
    NULL,
    STRING_TAGS,
    BadValue,
    Document,
    Node,
    Pairs,
    Place,
    describe,
    is_list,
    is_mapping,
    join,
    shown,
)
from build_oci.config.keys import (
    ARCHITECTURES,
    CODEC_PAIRS,
    OTHER_NAMES,
    PLAIN_SOURCES,
    SECTIONS,
    SOURCE_KEYS,
    SYSTEMS,
    TOP_KEYS,
    Codec,
    Compression,
    Key,
    Kind,
)
from build_oci.config.patterns import compile_pattern
from build_oci.errors import BuildOciError, ConfigError, UsageError
from build_oci.oci.documents import Platform
from build_oci.oci.fields import config_findings
from build_oci.oci.media_types import LAST_EPOCH, REF_NAME_KEY
from build_oci.oci.runtime_config import changes_of

__all__ = [
    "BuildConfig",
    "Codec",
    "ComponentSource",
    "Compression",
    "ImageConfig",
    "ParentConfig",
    "PreviousConfig",
    "SplitConfig",
    "StackItem",
    "check_paths",
    "load_config",
    "source_date_epoch",
]

MIB = 1 << 20
# How alike a stray key and a known one are (difflib's ratio) where it is a slip: `layr` 0.89,
# `imags` 0.91. What real documents carry beside the known keys (`created`, `tags`) has 0.6 at the
# most.
SLIP = 0.8
REF_NAME = "[A-Za-z0-9]+([-._:@+/]+[A-Za-z0-9]+)*"
_PATHS = (Kind.PATH, Kind.FILE, Kind.TREE)
NO_COMPRESSION = ("none", "off", "no", "plain", "uncompressed", "tar", "store", "stored")
_SOURCES_HINT = (
    "write `components: [{file: MAP}, xattr, packages, {paths: {kernel: [usr/lib/modules]}}]`"
)
_GLOB = Key(
    "", Kind.STRING, "a path below the root, or a glob such as `usr/share/fonts/**`", required=True
)


class ParentConfig(NamedTuple):
    """The image to build upon: manifest `number` (from 0) in the index of the OCI layout in the
    directory `image`.
    """

    image: str
    number: int
    recompress: bool
    trust: bool
    where: str
    inherit: bool = False  # its config


class StackItem(NamedTuple):
    """One item of `layers`: an image, or a directory to add (None: nothing) and paths to remove,
    normalised, none below another one.
    """

    where: str
    image: ParentConfig | None = None
    add: str | None = None
    remove: tuple[str, ...] = ()


class PreviousConfig(NamedTuple):
    """What an earlier build made: manifest `number` (from 0) in the index of the OCI layout
    `image`, and the file `plan`, or one of them.

    `plan_where` is for errors, as `where`, which is that of `image`.
    """

    image: str | None
    number: int
    plan: str | None
    trust: bool
    optional: bool
    where: str
    plan_where: str


class ComponentSource(NamedTuple):
    """One item of `components`. kind: `xattr`, `packages`, `file` or `paths`; `path` is that of
    `file`, `paths` maps names to globs.
    """

    kind: str
    where: str
    path: str = ""
    paths: Mapping[str, tuple[str, ...]] = MappingProxyType({})


class SplitConfig(NamedTuple):
    """How `layer` becomes many layers. unclaimed: `warn`, `error` or `ignore`; plan: the file to
    write the plan to.
    """

    max_layers: int
    components: tuple[ComponentSource, ...]
    unclaimed: str
    plan: str | None
    where: str
    plan_where: str


class ImageConfig(NamedTuple):
    """One image to build. `where` is for errors: `config.yaml:12: images[0]`; `layer_where` that of
    its `layer`.

    `config` is JSON-able and passed through untouched; `has_config` tells an absent one from
    `null`. `exclude` holds patterns as they were written, each of which compile_pattern takes;
    `owner` is user and group. `layer` is a directory; where an image is packed instead, it is None
    and `layer_image` is that.
    """

    where: str
    architecture: str
    os: str
    variant: str | None
    os_version: str | None
    os_features: tuple[str, ...] | None
    author: str | None
    comment: str | None
    layer: str | None
    layer_where: str
    split: SplitConfig | None
    parent: ParentConfig | None
    has_config: bool
    config: Any
    annotations: Mapping[str, str]
    index_annotations: Mapping[str, str]
    exclude: tuple[str, ...] = ()
    exclude_where: str = ""
    owner: tuple[int, int] | None = None
    previous: PreviousConfig | None = None
    layer_image: ParentConfig | None = None
    stack: tuple[StackItem, ...] | None = None  # `layers`, where it is given

    @property
    def images(self) -> tuple[ParentConfig, ...]:
        """Every image that this one is made of."""
        parts = [item.image for item in self.stack or ()]
        return tuple(source for source in (self.parent, self.layer_image, *parts) if source)

    @property
    def directories(self) -> tuple[tuple[str, str], ...]:
        """Every directory that it is made of, and where the configuration names it."""
        layer = ((self.layer, self.layer_where),) if self.layer is not None else ()
        return layer + tuple(
            (item.add, item.where) for item in self.stack or () if item.add is not None
        )

    @property
    def has_tree(self) -> bool:
        """Is there something to pack, a directory or an image?"""
        return self.layer is not None or self.layer_image is not None

    @property
    def platform(self) -> Platform:
        return Platform(
            self.architecture,
            self.os,
            os_version=self.os_version,
            os_features=self.os_features,
            variant=self.variant,
        )


class BuildConfig(NamedTuple):
    """A whole configuration. `codecs`: one, or gzip and a kind of zstd, in this order: each image
    is written once for each of them.

    `prefetch_limit` is in bytes; `warnings` are lines for the user.
    """

    codecs: tuple[Codec, ...]
    skip_xattrs: bool
    trust_checksum_xattrs: bool | None  # None: on FUSE
    preserve_hardlinks: bool
    prefetch_limit: int
    annotations: Mapping[str, str]
    ref_name: str | None
    images: tuple[ImageConfig, ...]
    warnings: tuple[str, ...]


class _Section(NamedTuple):
    """The values of one mapping by key, defaults filled in, and the place of the mapping and of
    every key it has a value for.
    """

    place: Place
    values: dict[str, Any]
    places: dict[str, Place]


class _Reader:
    """Reads nodes by the tables above; every problem goes to the document."""

    def __init__(self, document: Document) -> None:
        self.document = document

    def section(self, node: Node, path: str, keys: tuple[Key, ...]) -> _Section:
        document = self.document
        section = _Section(document.place(node, path), {key.name: key.default for key in keys}, {})
        known = {key.name: key for key in keys}
        pairs = document.pairs(node, path)
        for name, (key_node, value_node) in pairs.items():
            place = document.place(key_node, join(path, name))
            if name not in known:
                self.unknown_key(name, place, keys, pairs)
                document.plain(value_node, place.path)
            elif value_node.tag == NULL and known[name].kind is not Kind.ANYTHING:
                if known[name].required:
                    document.problem(
                        place,
                        f"has no value, and must be {known[name].kind}",
                        f"it is {known[name].doc}",
                    )
                else:
                    document.warn(place, "has no value, so it counts as not given")
            else:
                try:
                    section.values[name] = self.value(known[name], value_node, place.path)
                    section.places[name] = place
                except BadValue as bad:
                    document.problem(place, bad.what, bad.hint)
        for key in keys:
            if key.required and key.name not in pairs:
                document.problem(
                    section.place, f"the key `{key.name}` is missing", f"it is {key.doc}"
                )
        return section

    def unknown_key(self, name: str, place: Place, keys: tuple[Key, ...], given: Pairs) -> None:
        """Stray keys are common and harmless. A slip of a key that is not given is an error: the
        document means something else.
        """
        what = f"`{shown(name)}` is not a key{_way_out(name, keys)}"
        if meant := _nearest(name, [key.name for key in keys if key.name not in given], SLIP):
            self.document.problem(
                place, f"`{shown(name)}` is not a key", f"did you mean `{meant}`?"
            )
        else:
            self.document.warn(place, what)

    def value(self, key: Key, node: Node, path: str) -> Any:
        """The value of KEY, or BadValue. What is wrong deeper inside the value is reported where it
        stands.
        """
        match key.kind:
            case Kind.STRING | Kind.PATH | Kind.FILE:
                return self.string(key, node)
            case Kind.TREE:
                return (
                    self.section(node, path, key.keys)
                    if is_mapping(node)
                    else self.string(key, node)
                )
            case Kind.BOOLEAN:
                value = self.scalar(key.kind, node)
                return (
                    value
                    if isinstance(value, bool)
                    else _refuse(
                        key.kind, node, _quotes_hint(value, ("true", "false", "yes", "no"))
                    )
                )
            case Kind.INTEGER:
                return self.integer(key, node)
            case Kind.CHOICE:
                return self.choice(key, node)
            case Kind.CHOICES:
                return (
                    self.each(node, path, lambda child, _: self.choice(key, child))
                    if is_list(node)
                    else (self.choice(key, node),)
                )
            case Kind.STRINGS | Kind.PATTERNS:
                if not is_list(node):
                    _refuse(
                        key.kind,
                        node,
                        (
                            f"write it as `{key.name}: [{shown(node.value)}]`"
                            if node.id == "scalar"
                            else ""
                        ),
                    )
                read = self.pattern if key.kind is Kind.PATTERNS else self.string
                return self.each(node, path, lambda child, _: read(key, child))
            case Kind.OWNER:
                return self.owner(node)
            case Kind.ANNOTATIONS:
                return self.annotations(node, path) if is_mapping(node) else _refuse(key.kind, node)
            case Kind.SECTION:
                hint = (
                    f"write it as `{key.name}: {{image: {shown(node.value)}}}`"
                    if key.name == "parent" and node.id == "scalar"
                    else ""
                )
                return (
                    self.section(node, path, key.keys)
                    if is_mapping(node)
                    else _refuse(key.kind, node, hint)
                )
            case Kind.SECTIONS:
                if not is_list(node):
                    _refuse(
                        key.kind, node, "begin it with a dash: `- `" if node.id == "mapping" else ""
                    )
                return self.each(
                    node,
                    path,
                    lambda child, at: (
                        self.section(child, at, key.keys)
                        if is_mapping(child)
                        else _refuse(Kind.SECTION, child)
                    ),
                )
            case Kind.SOURCES:
                if not is_list(node):
                    _refuse(
                        key.kind,
                        node,
                        (
                            f"write it as `components: [{shown(node.value)}]`"
                            if node.id == "scalar"
                            else _SOURCES_HINT
                        ),
                    )
                return self.each(node, path, self.source)
            case Kind.GLOBS:
                return (
                    self.globs(node, path)
                    if is_mapping(node)
                    else _refuse(key.kind, node, _SOURCES_HINT)
                )
            case Kind.ANYTHING:
                return self.document.plain(node, path)

    def each(self, node: Node, path: str, read: Callable[[Node, str], Any]) -> tuple[Any, ...]:
        values = []
        for index, child in enumerate(node.value):
            try:
                values.append(read(child, f"{path}[{index}]"))
            except BadValue as bad:
                self.document.problem(
                    self.document.place(child, f"{path}[{index}]"), bad.what, bad.hint
                )
        return tuple(values)

    def scalar(self, wanted: str, node: Node) -> object:
        return self.document.scalar(node) if node.id == "scalar" else _refuse(wanted, node)

    def string(self, key: Key, node: Node) -> str:
        value = self.scalar(Kind.STRING, node)
        if not isinstance(value, str):
            return _refuse(Kind.STRING, node, f'quote it: "{shown(node.value)}"')
        if not value and (key.required or key.kind in _PATHS):
            raise BadValue("is empty", f"it is {key.doc}")
        if "\0" in value and key.kind in _PATHS:
            raise BadValue("a path cannot hold a NUL character")
        return native_path(value) if key.kind in _PATHS else value

    def pattern(self, key: Key, node: Node) -> str:
        value = self.string(key, node)
        try:
            compile_pattern(value)
        except ValueError as error:
            raise BadValue(str(error)) from None
        return value

    def owner(self, node: Node) -> tuple[int, int]:
        # As it is written: to YAML 1.1, 10:20 is a number to the base of 60.
        found = (
            re.fullmatch("([0-9]{1,10}):([0-9]{1,10})", node.value) if node.id == "scalar" else None
        )
        if not found:
            return _refuse("`UID:GID`, two numbers", node)
        uid, gid = int(found[1]), int(found[2])
        # The highest number means “unchanged” to chown.
        if max(uid, gid) >= (1 << 32) - 1:
            raise BadValue(f"must be two numbers up to {(1 << 32) - 2}")
        return uid, gid

    def integer(self, key: Key, node: Node) -> int:
        bounds = (
            f"{key.minimum} or more"
            if key.maximum is None
            else f"from {key.minimum} to {key.maximum}"
        )
        value = self.scalar(f"{key.kind} {bounds}", node)
        # A bool is an int to Python.
        if (
            type(value) is not int
            or value < key.minimum
            or (key.maximum is not None and value > key.maximum)
        ):
            return _refuse(f"{key.kind} {bounds}", node)
        return value

    def choice(self, key: Key, node: Node) -> Any:
        wanted = "one of " + ", ".join(f"`{str(choice).lower()}`" for choice in key.choices)
        value = self.scalar(wanted, node)
        # 1 and True are the same key to a dict.
        if isinstance(value, str | bool) and value in key.choices:
            return key.choices[value]
        if key.name == "mode" and value == "docker":
            raise BadValue(
                "the format `docker` is not written: it was dropped by the original build-oci too",
                "remove `mode`, and convert the result: `skopeo copy oci:DIR docker-archive:FILE`",
            )
        choices = [choice for choice in key.choices if isinstance(choice, str)]
        near = (
            "disabled"
            if "disabled" in choices and str(value).lower() in NO_COMPRESSION
            else _nearest(str(value).lower(), choices)
        )
        hint = (
            f"did you mean `{near}`?"
            if near
            else _quotes_hint(value, ("true", "false") if True in key.choices else ())
        )
        return _refuse(wanted, node, hint)

    def source(self, node: Node, path: str) -> ComponentSource:
        """One item of `components`."""
        document = self.document
        where = document.where(document.place(node, path))
        wanted = "`xattr`, `packages`, `file: PATH` or `paths: {NAME: [GLOB]}`"
        if node.id == "scalar":
            value = self.scalar(wanted, node)
            if value in PLAIN_SOURCES:
                return ComponentSource(str(value), where)
            near = _nearest(str(value).lower(), PLAIN_SOURCES)
            hint = (
                f"did you mean `{near}`?"
                if near
                else f"a map of components is `- file: {shown(value)}`"
            )
            return _refuse(wanted, node, _SOURCES_HINT if value in ("file", "paths") else hint)
        if not is_mapping(node):
            _refuse(wanted, node)
        section = self.section(node, path, SOURCE_KEYS)
        given = [name for name, value in section.values.items() if value is not None]
        if len(given) != 1 and not document.has_problems:  # or the missing one has a problem
            what = (
                "names two sources, `file` and `paths`"
                if given
                else f"names no source; it must be {wanted}"
            )
            raise BadValue(what, "write each as an item of its own" if given else "")
        return ComponentSource(
            given[0] if given else "",
            where,
            section.values["file"] or "",
            section.values["paths"] or {},
        )

    def globs(self, node: Node, path: str) -> dict[str, tuple[str, ...]]:
        """Components with the globs of each. What is wrong with one is reported where it stands."""
        from build_oci.split.component import name_problem
        from build_oci.split.sources.paths import pattern_problem

        document = self.document

        def glob(child: Node, _: str) -> str:
            value = self.string(_GLOB, child)
            if problem := pattern_problem(value):
                raise BadValue(
                    f"`{shown(value)}` {problem}",
                    "it is a path below the root, or a glob such as `usr/share/fonts/**`",
                )
            return value

        globs = {}
        for name, (key_node, value_node) in document.pairs(node, path).items():
            place = document.place(key_node, join(path, name))
            if problem := name_problem(name):
                document.problem(
                    place,
                    f"the component {problem}",
                    "a name is one to 255 bytes that can be printed",
                )
            try:
                if not is_list(value_node):
                    _refuse(
                        Kind.STRINGS,
                        value_node,
                        (
                            f"write it as `[{shown(value_node.value)}]`"
                            if value_node.id == "scalar"
                            else ""
                        ),
                    )
                globs[name] = self.each(value_node, place.path, glob)
            except BadValue as bad:
                document.problem(place, bad.what, bad.hint)
        return globs

    def annotations(self, node: Node, path: str) -> dict[str, str]:
        document = self.document
        annotations = {}
        for name, (key_node, value_node) in document.pairs(node, path).items():
            place = document.place(key_node, join(path, name))
            if key_node.tag not in STRING_TAGS:
                document.problem(
                    place,
                    f"the key of an annotation must be a string, not {describe(key_node)}",
                    f'quote it: "{shown(key_node.value)}"',
                )
                continue
            try:
                value = self.scalar("a string", value_node)
                annotations[name] = (
                    value
                    if isinstance(value, str)
                    else _refuse("a string", value_node, f'quote it: "{shown(value_node.value)}"')
                )
            except BadValue as bad:
                document.problem(place, bad.what, bad.hint)
        return annotations


def native_path(path: str) -> str:
    """PATH, a text of the document, as this process names files: on disk names are UTF-8, whatever
    the locale is.
    """
    return os.fsdecode(path.encode("utf-8", "surrogateescape"))


def _refuse(wanted: str, node: Node, hint: str = "") -> NoReturn:
    raise BadValue(f"must be {wanted}, not {describe(node)}", hint)


def _quotes_hint(value: object, words: tuple[str, ...]) -> str:
    return "write it without quotes" if isinstance(value, str) and value.lower() in words else ""


def _nearest(word: str, words: Iterable[str], cutoff: float = 0.6) -> str:
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, list(words), n=1, cutoff=cutoff)), "")


def _way_out(name: str, keys: tuple[Key, ...]) -> str:
    """What to do about a key that is not among KEYS."""
    homes = [home for home, others in SECTIONS.items() if any(name == key.name for key in others)]
    near = _nearest(name, [key.name for key in keys])
    asked = f"; did you mean `{near}`?" if near else ""
    return f" here; it is one {homes[0]}{asked}" if homes else asked or ", and is ignored"


# ---- from what is written to what is meant


def load_config(text: str | bytes, *, source: str = "<stdin>") -> BuildConfig:
    """The configuration in TEXT, one YAML document; SOURCE is what errors call it. ConfigError
    holds every problem of the document.
    """
    document = Document(text, source)
    reader = _Reader(document)
    try:
        if not is_mapping(document.root):
            _refuse("a mapping, with `images` among its keys", document.root)
    except BadValue as bad:
        document.problem(document.place(document.root, ""), bad.what, bad.hint)
        document.finish()
    top = reader.section(document.root, "", TOP_KEYS)
    _ref_names(document, top)
    codecs = _codecs(document, top)
    if not top.values["images"] and not document.has_problems:  # else the problem may be the images
        document.warn(
            top.places.get("images", top.place), "no images to build: the index will be empty"
        )
    images = tuple(_image(document, section) for section in top.values["images"])
    return BuildConfig(
        codecs=codecs,
        skip_xattrs=top.values["skip-xattrs"],
        trust_checksum_xattrs=top.values["trust-checksum-xattrs"],
        preserve_hardlinks=top.values["hardlinks"],
        prefetch_limit=top.values["prefetch-limit-mb"] * MIB,
        annotations=dict(top.values["annotations"]),
        ref_name=top.values["ref-name"],
        images=images,
        warnings=document.finish(),
    )


def _codecs(document: Document, top: _Section) -> tuple[Codec, ...]:
    compressions = _compressions(document, top)
    level = top.values["compression-level"]
    if level is None:
        return tuple(
            Codec(compression, DEFAULT_LEVELS[compression]) for compression in compressions
        )
    place = top.places["compression-level"]
    if Compression.DISABLED in compressions:
        document.warn(place, "has no effect: compression is `disabled`")
        return tuple(Codec(compression, None) for compression in compressions)
    for compression in compressions:
        if level > (highest := HIGHEST_LEVELS[compression]):
            hint = (
                "with two codecs the level is for both; without it each has its default"
                if len(compressions) > 1
                else "`zstd` goes up to 22"
            )
            document.problem(
                place, f"must be from 1 to {highest} with `{compression}`, not {level}", hint
            )
    return tuple(Codec(compression, level) for compression in compressions)


def _compressions(document: Document, top: _Section) -> tuple[Compression, ...]:
    """What `compression`, or `gzip`, asks for, with gzip first: clients that know no zstd take the
    first image of their platform.
    """
    given: tuple[Compression, ...] = top.values["compression"]
    compressions = tuple(sorted(given, key=lambda compression: compression is not Compression.GZIP))
    # Where there are problems, one of them may be in these.
    if len(given) != 1 and compressions not in CODEC_PAIRS and not document.has_problems:
        document.problem(
            top.places["compression"],
            "a list names `gzip` and one of `zstd`, `zstd:chunked`, or one compression alone",
            "write `compression: [gzip, zstd]`, or one without brackets",
        )
    if "gzip" in top.places:
        former: Compression = top.values["gzip"]
        if "compression" in top.places and compressions != (former,):
            asked = ", ".join(compressions)
            document.problem(
                top.places["gzip"],
                f"means `{former}`, but `compression` says `{asked}`",
                "remove `gzip`",
            )
        return (former,)
    return compressions or (Compression.ZSTD,)


def _ref_names(document: Document, top: _Section) -> None:
    """Warnings of names that clients cannot find an image by."""
    name = top.values["ref-name"]
    if name is not None and not re.fullmatch(REF_NAME, name):
        document.warn(
            top.places["ref-name"],
            f"`{shown(name)}` is not a name of the image-spec: letters and digits, `-._:@/+`"
            " between them",
        )
    seen: dict[str, str] = {}
    two = len(top.values["compression"]) > 1
    for section in top.values["images"]:
        given = (
            section.values["index-annotations"].get(REF_NAME_KEY)
            if "index-annotations" in section.places
            else None
        )
        if given is None:
            continue
        place = section.places["index-annotations"]
        if two:
            document.warn(
                place,
                f"the {REF_NAME_KEY} names the image with gzip only; `ref-name` at the top names"
                " both",
            )
        if given in seen:
            document.warn(
                place,
                f"`{shown(given)}` is the {REF_NAME_KEY} of {seen[given]} too: clients find only"
                " one of them by it",
            )
        seen.setdefault(given, section.place.path)


def _image(document: Document, section: _Section) -> ImageConfig:
    values, places = section.values, section.places
    for name, usual in (("architecture", ARCHITECTURES.split()), ("os", SYSTEMS.split())):
        if name in places and values[name] not in usual:
            near = OTHER_NAMES.get(values[name].lower()) or _nearest(values[name].lower(), usual)
            hint = f"; did you mean `{near}`?" if near else ""
            document.warn(
                places[name], f"`{shown(values[name])}` is not a name that clients know{hint}"
            )
    parent: _Section | None = values["parent"]
    if "config" in places:
        inherits = any(
            isinstance(source, _Section) and source.values["config"]
            for source in (parent, values["layer"])
        )
        for name, what in config_findings(
            changes_of(values["config"]) if inherits else values["config"]
        ):
            place = places["config"]
            document.warn(place._replace(path=join(place.path, name)) if name else place, what)
    for name in ("exclude", "owner"):
        if name in places and not places.keys() & {"layer", "layers"}:
            document.warn(places[name], "has no effect: there is no `layer`")
    split: _Section | None = values["split"]
    if split and values["layer"] is None:
        document.warn(split.place, "has no effect: the image has no `layer` to split")
    layer = values["layer"]
    layer_image: ParentConfig | None = None
    if isinstance(layer, _Section):
        layer_image = _image_source(document, layer)
        if values["exclude"]:
            document.warn(
                places["exclude"],
                "has no effect: `layer` is an image; `exclude` is for directories",
            )
    return ImageConfig(
        where=document.where(section.place),
        architecture=values["architecture"],
        os=values["os"],
        variant=values["variant"],
        os_version=values["os.version"],
        os_features=values["os.features"],
        author=values["author"],
        comment=values["comment"],
        layer=None if layer_image else layer,
        layer_where=document.where(places.get("layer", section.place)),
        split=_split_config(document, split) if split else None,
        parent=(
            _parent_config(parent.values, document.where(parent.places.get("image", parent.place)))
            if parent
            else None
        ),
        has_config="config" in places,
        config=values["config"],
        annotations=dict(values["annotations"]),
        index_annotations=dict(values["index-annotations"]),
        exclude=values["exclude"],
        exclude_where=document.where(places.get("exclude", section.place)),
        owner=values["owner"],
        previous=(
            _previous_config(document, values["previous"], values) if values["previous"] else None
        ),
        layer_image=layer_image,
        stack=_stack(document, section),
    )


def _stack(document: Document, section: _Section) -> tuple[StackItem, ...] | None:
    place = section.places.get("layers")
    if place is None:
        return None
    for name in ("layer", "split"):
        if name in section.places:
            document.problem(
                section.places[name],
                "cannot stand beside `layers`",
                "write the directory as `{add: DIRECTORY}` among `layers`, or leave `layers` out",
            )
    return tuple(_stack_item(document, item) for item in section.values["layers"])


def _stack_item(document: Document, item: _Section) -> StackItem:
    values, places = item.values, item.places
    adds = [name for name in ("add", "remove") if name in places]
    if ("image" in places) is bool(adds):
        what = (
            f"has both `image` and `{adds[0]}`"
            if adds
            else "has neither `add`, `remove` nor `image`"
        )
        document.problem(
            item.place,
            what,
            "write `{add: DIRECTORY}`, `{add: DIRECTORY, remove: [PATH]}` or `{image: LAYOUT}`",
        )
    for name in ("index", "recompress"):
        if name in places and "image" not in places:
            document.warn(places[name], "has no effect: there is no `image`")
    where = document.where(places.get("image") or places.get("add") or item.place)
    image = (
        ParentConfig(
            values["image"], values["index"], values["recompress"], trust=False, where=where
        )
        if "image" in places
        else None
    )
    return StackItem(
        where,
        image,
        values["add"],
        _removed(document, values["remove"], places.get("remove", item.place)),
    )


def _removed(document: Document, paths: tuple[str, ...], place: Place) -> tuple[str, ...]:
    normalised = set()
    for path in paths:
        names = [name for name in path.split("/") if name not in ("", ".")]
        if not names or ".." in names or "\0" in path:
            document.problem(
                place, f"`{shown(path)}` is no path below the root", "write it as `/etc/motd`"
            )
        normalised.add(tuple(names))
    whole = [
        names
        for names in normalised
        if not any(names[:size] in normalised for size in range(1, len(names)))
    ]
    return tuple(sorted("/".join(names) for names in whole))


def _image_source(document: Document, section: _Section) -> ParentConfig:
    """An image that is read, and built upon by nobody."""
    where, values = document.where(section.places.get("image", section.place)), section.values
    return ParentConfig(
        values["image"],
        values["index"],
        recompress=True,
        trust=False,
        where=where,
        inherit=values.get("config", False),
    )


def _split_config(document: Document, section: _Section) -> SplitConfig:
    values = section.values
    where = document.where(section.place)
    # The default stands in the table as what would be written.
    sources = tuple(
        ComponentSource(source, where) if isinstance(source, str) else source
        for source in values["components"]
    )
    for place, source in enumerate(sources):
        if source.kind in PLAIN_SOURCES and source.kind in (
            other.kind for other in sources[:place]
        ):
            document.warn(section.places["components"], f"`{source.kind}` stands there twice")
    return SplitConfig(
        max_layers=values["max-layers"],
        components=sources,
        unclaimed=values["unclaimed"],
        plan=values["plan"],
        where=where,
        plan_where=document.where(section.places.get("plan", section.place)),
    )


def _previous_config(
    document: Document, section: _Section, image: Mapping[str, Any]
) -> PreviousConfig:
    values, places = section.values, section.places
    # Where there are problems, one of them may be the one that is missing.
    if values["image"] is None and values["plan"] is None and not document.has_problems:
        document.problem(
            section.place,
            "names nothing to build upon",
            "give `image`, the layout of the last build, or `plan`, the plan it wrote",
        )
    if image["layer"] is None:
        document.warn(section.place, "has no effect: the image has no `layer`")
    elif image["split"] is None and "plan" in places:
        document.warn(places["plan"], "has no effect: the image has no `split`")
    for name in ("index", "trust"):
        if name in places and values["image"] is None:
            document.warn(places[name], "has no effect: there is no `image`")
    return PreviousConfig(
        image=values["image"],
        number=values["index"],
        plan=values["plan"],
        trust=values["trust"],
        optional=values["optional"],
        where=document.where(places.get("image", section.place)),
        plan_where=document.where(places.get("plan", section.place)),
    )


# ---- what surrounds the configuration


def _parent_config(values: dict[str, Any], where: str) -> ParentConfig:
    return ParentConfig(
        image=values["image"],
        number=values["index"],
        recompress=values["recompress"],
        trust=values["trust"],
        where=where,
        inherit=values["config"],
    )


def source_date_epoch(environ: Mapping[str, str]) -> int | None:
    """SOURCE_DATE_EPOCH in seconds, None where it is not set or empty; UsageError if it is not a
    whole number from 0 to the year 9999.
    """
    text = environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    # `created` has four digits for the year.
    if not re.fullmatch("[0-9]{1,20}", text) or int(text) > LAST_EPOCH:
        raise UsageError(
            f"must be a whole number of seconds from 0 to {LAST_EPOCH}, not `{shown(text)}`",
            where="SOURCE_DATE_EPOCH",
            hint=(
                "unset it to keep the times of the files, or set it: `SOURCE_DATE_EPOCH=$(git log"
                " -1 --format=%ct)`"
            ),
        )
    return int(text)


def check_paths(config: BuildConfig) -> None:
    """Looks at every path that CONFIG names: layers are directories that can be listed, parents
    hold an `index.json`.

    ConfigError with every problem.
    """
    problems: list[BuildOciError] = []
    for image in config.images:
        for directory, where in image.directories:
            if what := _unusable(directory):
                problems.append(UsageError(what, where=where, hint=_path_hint(directory)))
        for component in image.split.components if image.split else ():
            if component.kind == "file" and not os.path.isfile(component.path):
                what = (
                    "is not a regular file" if os.path.exists(component.path) else "does not exist"
                )
                problems.append(
                    UsageError(
                        f"`{component.path}` {what}",
                        where=component.where,
                        hint=_path_hint(component.path),
                    )
                )
        for source in image.images:
            problems += _layout_problems(source.image, source.where)
        if image.previous:
            problems += _previous_problems(image.previous)
    if problems:
        raise ConfigError(problems)


def _layout_problems(path: str, where: str) -> list[BuildOciError]:
    """Why the directory PATH cannot be read as an OCI layout."""
    if what := _unusable(path):
        return [UsageError(what, where=where, hint=_path_hint(path))]
    if os.path.isfile(os.path.join(path, "index.json")):
        return []
    hint = f"`skopeo copy docker://IMAGE oci:{path}` makes one of an image"
    return [
        UsageError(f"`{path}` is no OCI layout: it has no `index.json`", where=where, hint=hint)
    ]


def _previous_problems(previous: PreviousConfig) -> list[BuildOciError]:
    problems: list[BuildOciError] = []
    if previous.image is not None:
        empty = os.path.isdir(previous.image) and not os.path.lexists(
            os.path.join(previous.image, "index.json")
        )
        if not empty and os.path.lexists(previous.image):
            problems += _layout_problems(previous.image, previous.where)
        elif not previous.optional:
            what = "holds no `index.json`" if empty else "does not exist"
            problems.append(
                UsageError(
                    f"`{previous.image}` {what}",
                    where=previous.where,
                    hint="`optional: true` builds without it until there is one",
                )
            )
    if previous.plan is not None and not os.path.lexists(previous.plan):
        if not previous.optional:
            problems.append(
                UsageError(
                    f"`{previous.plan}` does not exist",
                    where=previous.plan_where,
                    hint="`optional: true` builds without it until there is one",
                )
            )
    elif previous.plan is not None and not os.path.isfile(previous.plan):
        problems.append(
            UsageError(
                f"`{previous.plan}` is not a regular file",
                where=previous.plan_where,
                hint="it is the plan of an earlier build",
            )
        )
    return problems


def _no_layout(path: str, where: str) -> UsageError | None:
    """Why PATH cannot be used as an OCI layout, if it cannot."""
    if what := _unusable(path):
        return UsageError(what, where=where, hint=_path_hint(path))
    if not os.path.isfile(os.path.join(path, "index.json")):
        hint = f"`skopeo copy docker://IMAGE oci:{path}` makes one of an image"
        return UsageError(
            f"`{path}` is no OCI layout: it has no `index.json`", where=where, hint=hint
        )
    return None


def _unusable(path: str) -> str:
    """Why PATH cannot be used as a directory, or nothing. Opening and entering it is the only
    proof.
    """
    try:
        with os.scandir(path) as entries:
            next(entries, None)
        os.stat(os.path.join(path, "."))
    except (OSError, ValueError) as error:
        return f"cannot use the directory `{path}`: {getattr(error, 'strerror', None) or error}"
    return ""


def _path_hint(path: str) -> str:
    if os.path.isfile(path):
        return "this is a file: unpack it if it is an archive, and name the directory"
    if path.startswith("~"):
        return "`~` means nothing here: write the path of the home directory"
    return (
        f"a relative path starts at the current directory, {os.getcwd()}"
        if not os.path.isabs(path)
        else ""
    )
