"""The documents of an image that somebody built: index, manifest and config, found, verified and
checked against each other.
"""

from __future__ import annotations

from typing import Any

from build_oci.errors import ParentError, counted
from build_oci.oci.documents import Platform
from build_oci.oci.media_types import CONFIGS, INDEXES, MANIFESTS
from build_oci.oci.recorded import recorded_recipe
from build_oci.oci.untrusted import (
    ANEW,
    ReadDescriptor,
    Source,
    parse_descriptor,
    parse_descriptors,
)
from build_oci.records import NamedTuple

NESTING = 8  # of indexes; one inside another is what tools write
_ALONE = "copy the image that is meant into a layout of its own, and name that"
_MOST_READ = 100  # images whose descriptors tell no platform, and indexes inside of one


class ReadManifest(NamedTuple):
    """The documents of an image, checked against each other.

    history: an entry for each layer, also where the image has none.
    config: the whole image config, as untrusted as it was.
    """

    layers: list[ReadDescriptor]
    diff_ids: list[str]
    history: list[Any]
    config: dict[str, Any]

    @property
    def runtime_config(self) -> dict[str, Any] | None:
        """The part of the config that says how a container runs; None where there is none."""
        found = self.config.get("config")
        return found if isinstance(found, dict) else None

    @property
    def records(self) -> bool:
        """Does any of the layers tell its recipe?"""
        return any(recorded_recipe(layer.annotations) for layer in self.layers)


def read_manifest(
    source: Source, number: int, platform: Platform, key: str = "parent"
) -> ReadManifest:
    """The documents of image NUMBER of the layout SOURCE; a nested index leads to the manifest for
    PLATFORM. Raises ParentError.

    KEY is the section of the configuration that names the image."""
    where = str(source.path / "index.json")
    manifests = parse_descriptors(source.index(), "manifests", where)
    if not 0 <= number < len(manifests):
        raise ParentError(
            f"has no manifest number {number}, for it has {len(manifests)} in all",
            where=where,
            hint=f"{key}.index counts from 0",
        )
    descriptor = manifests[number]
    document = source.document(descriptor)
    for _ in range(NESTING):
        where = str(source.blob_path(descriptor.digest))
        if not is_index(descriptor, document):
            break
        del document  # each may be large
        descriptor = _for_platform(source, descriptor, platform, key)
        document = source.document(descriptor)
    else:
        raise ParentError(f"is an index within an index, {NESTING} deep", where=where, hint=_ALONE)
    media_type = document.get("mediaType") or descriptor.media_type
    if media_type not in MANIFESTS:
        raise ParentError(
            f"is no image manifest but “{str(media_type)[:200]}”",
            where=where,
            hint=f"{key}.index chooses another one",
        )
    return read_image(source, document, where)


def read_image(source: Source, document: dict[str, Any], where: str) -> ReadManifest:
    """What the manifest DOCUMENT, the blob WHERE, and its config say. Raises ParentError."""
    layers = parse_descriptors(document, "layers", where)
    config_descriptor = parse_descriptor(document.get("config"), f"{where}: config")
    return _checked(
        layers, source.document(config_descriptor), str(source.blob_path(config_descriptor.digest))
    )


def is_index(descriptor: ReadDescriptor, document: dict[str, Any]) -> bool:
    return (
        descriptor.media_type in INDEXES
        or document.get("mediaType") in INDEXES
        or ("manifests" in document and "layers" not in document)
    )


def _for_platform(
    source: Source, top: ReadDescriptor, platform: Platform, key: str
) -> ReadDescriptor:
    """The image that PLATFORM needs, in the index TOP and all indexes inside it.

    One with the same variant comes before others, then an outer one before an inner. A descriptor
    need not tell a platform: an index is then looked into, and of an image its config tells.
    """
    level, seen, reads = [top], {top.digest}, _MOST_READ
    fitting: ReadDescriptor | None = None
    there: set[str] = set()
    for _ in range(NESTING):
        inside = []
        for index in level:
            where = str(source.blob_path(index.digest))
            for one in parse_descriptors(source.document(index), "manifests", where):
                if one.digest in seen or (one.platform and not _fits(one.platform, platform)):
                    there.add(_told(one.platform))
                    continue
                nested = one.media_type in INDEXES
                if not one.platform and not nested and reads:
                    reads -= 1
                    nested, told = _platform_inside(source, one)
                    one = one._replace(platform=told)
                if nested:
                    seen.add(one.digest)
                    inside.append(one)
                elif not _fits(one.platform, platform):
                    there.add(_told(one.platform))
                elif one.platform.get("variant") == platform.variant:
                    return one
                else:
                    fitting = fitting or one
        if not inside:
            break
        if len(seen) > _MOST_READ:
            raise ParentError(
                f"has more than {_MOST_READ} indexes inside",
                where=str(source.blob_path(top.digest)),
                hint=_ALONE,
            )
        level = inside
    else:
        raise ParentError(
            f"is an index within an index, {NESTING} deep",
            where=str(source.blob_path(level[0].digest)),
            hint=_ALONE,
        )
    if fitting is None:
        hint = (
            "architecture and os of the image choose among these;"
            f" {key}.image can be another layout"
        )
        wanted, others = (
            f"{platform.os}/{platform.architecture}",
            ", ".join(sorted(there))[:500] or "nothing",
        )
        raise ParentError(
            f"holds no image for {wanted}, only for: {others}",
            where=str(source.blob_path(top.digest)),
            hint=hint,
        )
    return fitting


def _fits(told: dict[str, Any], platform: Platform) -> bool:
    return (
        told.get("os") == platform.os
        and told.get("architecture") == platform.architecture
        and (platform.variant is None or told.get("variant") in (None, platform.variant))
    )


def _told(platform: dict[str, Any]) -> str:
    return f"{platform.get('os', '?')}/{platform.get('architecture', '?')}"[:100]


def _platform_inside(source: Source, descriptor: ReadDescriptor) -> tuple[bool, dict[str, Any]]:
    """Is DESCRIPTOR that of an index?

    If not, the platform that the config of the image says; nothing where it is no image.
    """
    document = source.document(descriptor)
    if is_index(descriptor, document):
        return True, {}
    if not isinstance(document.get("config"), dict):
        return False, {}
    config = parse_descriptor(document["config"], f"{source.blob_path(descriptor.digest)}: config")
    if config.media_type not in CONFIGS:
        return False, {}
    content = source.document(config)
    return False, {
        key: content[key]
        for key in ("os", "architecture", "variant")
        if isinstance(content.get(key), str)
    }


def _checked(layers: list[ReadDescriptor], config: dict[str, Any], where: str) -> ReadManifest:
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    # Images without layers exist; some builders write null for no diff_ids at all.
    diff_ids = [] if diff_ids is None and isinstance(rootfs, dict) and not layers else diff_ids
    if not isinstance(diff_ids, list):
        raise ParentError(
            "has no list “rootfs.diff_ids”: it is no image config",
            where=where,
            hint="if this is an artifact and no image, `index` chooses another manifest",
        )
    for diff_id in diff_ids:
        parse_descriptor({"digest": diff_id, "size": 0}, f"{where}: rootfs.diff_ids")
    if len(diff_ids) != len(layers):
        raise ParentError(
            f"names {counted(len(diff_ids), 'diff_id')}, but the manifest has"
            f" {counted(len(layers), 'layer')}",
            where=where,
            hint=ANEW,
        )
    history = config.get("history") or []
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise ParentError("its history is no list of objects", where=where, hint=ANEW)
    return ReadManifest(
        layers, diff_ids, _history_of(history, len(layers), config.get("created")), config
    )


def _history_of(entries: list[dict[str, Any]], layers: int, created: Any) -> list[dict[str, Any]]:
    """ENTRIES with as many of layers as there are LAYERS: history is optional, and clients fail
    where it is incomplete.

    Layers that no entry tells of get one at the end; entries beyond the number of layers are marked
    as empty. CREATED: the image's own.
    """
    made = [entry for entry in entries if entry.get("empty_layer") is not True]
    if len(made) > layers:
        surplus = set(map(id, made[layers:]))
        return [
            entry | {"empty_layer": True} if id(entry) in surplus else entry for entry in entries
        ]
    missing = {"created": created} if isinstance(created, str) else {}
    return entries + [missing | {"created_by": "unknown"}] * (layers - len(made))
