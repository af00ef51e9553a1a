"""A configuration as the build sees it: what is written and the defaults, validated and frozen."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from build_oci.config.keys import Codec
from build_oci.oci.documents import Platform
from build_oci.records import NamedTuple


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
    """One image to build.

    `where` is for errors: `config.yaml:12: images[0]`; `layer_where` that of its `layer`.

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
    """A whole configuration.

    `codecs`: one, or gzip and a kind of zstd, in this order: each image is written once for each of
    them.

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
