"""The documents of a parent image: index, manifest and config, found, verified and checked against each other."""

from __future__ import annotations

from typing import Any, NamedTuple

from build_oci.errors import ParentError, counted
from build_oci.oci.documents import Platform
from build_oci.oci.media_types import CONFIGS, INDEXES, MANIFESTS
from build_oci.oci.untrusted import ReadDescriptor, Source, parse_descriptor, parse_descriptors

NESTING = 8  # of indexes; one inside another is what tools write
_MOST_CONFIGS_READ = 100  # of images in one index whose descriptors tell no platform


class ReadManifest(NamedTuple):
    """The documents of a parent, checked against each other.

    history: an entry for each layer, also where the parent has none. config: the whole image config, as untrusted as it was.
    """

    layers: list[ReadDescriptor]
    diff_ids: list[str]
    history: list[Any]
    config: dict[str, Any]


def read_manifest(source: Source, number: int, platform: Platform) -> ReadManifest:
    """The documents of image NUMBER of the layout SOURCE; a nested index leads to the manifest for PLATFORM. Raises ParentError."""
    where = str(source.path / "index.json")
    manifests = parse_descriptors(source.index(), "manifests", where)
    if not 0 <= number < len(manifests):
        raise ParentError(
            f"has no manifest number {number}, for it has {len(manifests)} in all", where=where, hint="parent.index counts from 0"
        )
    descriptor = manifests[number]
    document = source.document(descriptor)
    for _ in range(NESTING):
        where = str(source.blob_path(descriptor.digest))
        if not _is_index(descriptor, document):
            break
        descriptor = _for_platform(source, parse_descriptors(document, "manifests", where), platform, where)
        document = source.document(descriptor)
    else:
        raise ParentError(f"is an index within an index, {NESTING} deep", where=where)
    media_type = document.get("mediaType") or descriptor.media_type
    if media_type not in MANIFESTS:
        raise ParentError(f"is no image manifest but “{str(media_type)[:200]}”", where=where, hint="parent.index chooses another one")
    layers = parse_descriptors(document, "layers", where)
    config_descriptor = parse_descriptor(document.get("config"), f"{where}: config")
    return _checked(layers, source.document(config_descriptor), str(source.blob_path(config_descriptor.digest)))


def _is_index(descriptor: ReadDescriptor, document: dict[str, Any]) -> bool:
    return (
        descriptor.media_type in INDEXES or document.get("mediaType") in INDEXES or ("manifests" in document and "layers" not in document)
    )


def _for_platform(source: Source, manifests: list[ReadDescriptor], platform: Platform, where: str) -> ReadDescriptor:
    """The one of MANIFESTS that PLATFORM needs. A descriptor need not tell a platform: then the image's config does."""
    unsaid = [one for one in manifests if not one.platform][:_MOST_CONFIGS_READ]
    manifests = [one._replace(platform=_platform_inside(source, one)) if one in unsaid else one for one in manifests]
    fitting = [
        one
        for one in manifests
        if one.platform.get("os") == platform.os
        and one.platform.get("architecture") == platform.architecture
        and (platform.variant is None or one.platform.get("variant") in (None, platform.variant))
    ]
    if not fitting:
        hint = "architecture and os of the image choose among these; parent.image can be another layout"
        there = ", ".join(sorted({f"{one.platform.get('os', '?')}/{one.platform.get('architecture', '?')}" for one in manifests}))
        raise ParentError(
            f"holds no image for {platform.os}/{platform.architecture}, only for: {there[:500] or 'nothing'}", where=where, hint=hint
        )
    exact = [one for one in fitting if one.platform.get("variant") == platform.variant]
    return (exact or fitting)[0]


def _platform_inside(source: Source, descriptor: ReadDescriptor) -> dict[str, Any]:
    """The platform that the config of the image DESCRIPTOR says; nothing where it is no image."""
    document = source.document(descriptor)
    if _is_index(descriptor, document) or not isinstance(document.get("config"), dict):
        return {}
    config = parse_descriptor(document["config"], f"{source.blob_path(descriptor.digest)}: config")
    if config.media_type not in CONFIGS:
        return {}
    content = source.document(config)
    return {key: content[key] for key in ("os", "architecture", "variant") if isinstance(content.get(key), str)}


def _checked(layers: list[ReadDescriptor], config: dict[str, Any], where: str) -> ReadManifest:
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    # Images without layers exist; some builders write null for no diff_ids at all.
    diff_ids = [] if diff_ids is None and isinstance(rootfs, dict) and not layers else diff_ids
    if not isinstance(diff_ids, list):
        raise ParentError("has no list “rootfs.diff_ids”: it is no image config", where=where)
    for diff_id in diff_ids:
        parse_descriptor({"digest": diff_id, "size": 0}, f"{where}: rootfs.diff_ids")
    if len(diff_ids) != len(layers):
        raise ParentError(f"names {counted(len(diff_ids), 'diff_id')}, but the manifest has {counted(len(layers), 'layer')}", where=where)
    history = config.get("history") or []
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise ParentError("its history is no list of objects", where=where)
    return ReadManifest(layers, diff_ids, _history_of(history, len(layers), config.get("created")), config)


def _history_of(entries: list[dict[str, Any]], layers: int, created: Any) -> list[dict[str, Any]]:
    """ENTRIES with as many of layers as there are LAYERS: history is optional, and clients fail where it is incomplete.

    Layers that no entry tells of get one at the end; entries beyond the number of layers are marked as empty. CREATED: the parent's own.
    """
    made = [entry for entry in entries if entry.get("empty_layer") is not True]
    if len(made) > layers:
        surplus = set(map(id, made[layers:]))
        return [entry | {"empty_layer": True} if id(entry) in surplus else entry for entry in entries]
    missing = {"created": created} if isinstance(created, str) else {}
    return entries + [missing | {"created_by": "unknown"}] * (layers - len(made))
