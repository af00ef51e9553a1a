"""The documents of a parent image: index, manifest and config, found, verified and checked against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from build_oci.errors import ParentError, counted
from build_oci.oci.documents import Platform
from build_oci.oci.media_types import CONFIGS, INDEXES, MANIFESTS
from build_oci.oci.untrusted import ReadDescriptor, Source, parse_descriptor, parse_descriptors

NESTING = 8  # of indexes; one inside another is what tools write
_MOST_DOCUMENTS_READ = 1000  # of indexes and images whose descriptors tell no platform


class ReadManifest(NamedTuple):
    """The documents of a parent, checked against each other.

    history: an entry for each layer, also where the parent has none. config: the whole image config, as untrusted as it was.
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


def read_manifest(source: Source, number: int, platform: Platform, key: str = "parent") -> ReadManifest:
    """The documents of image NUMBER of the layout SOURCE; a nested index leads to the manifest for PLATFORM. Raises ParentError.

    KEY is the section of the configuration that names the image."""
    where = str(source.path / "index.json")
    manifests = parse_descriptors(source.index(), "manifests", where)
    if not 0 <= number < len(manifests):
        raise ParentError(
            f"has no manifest number {number}, for it has {len(manifests)} in all", where=where, hint=f"{key}.index counts from 0"
        )
    descriptor = manifests[number]
    document = source.document(descriptor)
    where = str(source.blob_path(descriptor.digest))
    if is_index(descriptor, document):
        descriptor = _ForPlatform(source, platform, key).choose(document, where)
        document = source.document(descriptor)
        where = str(source.blob_path(descriptor.digest))
    media_type = document.get("mediaType") or descriptor.media_type
    if media_type not in MANIFESTS:
        raise ParentError(f"is no image manifest but “{str(media_type)[:200]}”", where=where, hint=f"{key}.index chooses another one")
    return read_image(source, document, where)


def read_image(source: Source, document: dict[str, Any], where: str) -> ReadManifest:
    """What the manifest DOCUMENT, the blob WHERE, and its config say. Raises ParentError."""
    layers = parse_descriptors(document, "layers", where)
    config_descriptor = parse_descriptor(document.get("config"), f"{where}: config")
    return _checked(layers, source.document(config_descriptor), str(source.blob_path(config_descriptor.digest)))


def is_index(descriptor: ReadDescriptor, document: dict[str, Any]) -> bool:
    return (
        descriptor.media_type in INDEXES or document.get("mediaType") in INDEXES or ("manifests" in document and "layers" not in document)
    )


class _ForPlatform:
    """Looks in an index, and in the indexes inside it, for the manifest that a platform needs.

    A descriptor need not tell a platform: then the config of the image does, or what the inner index holds.
    """

    def __init__(self, source: Source, platform: Platform, key: str = "parent") -> None:
        self._source = source
        self._platform = platform
        self._key = key
        self._documents_left = _MOST_DOCUMENTS_READ
        self._seen: set[str] = set()  # platforms, for the error

    def choose(self, index: dict[str, Any], where: str) -> ReadDescriptor:
        """The descriptor of the manifest. ParentError where INDEX, which is the document WHERE, has none that fits."""
        fitting = self._fitting(index, where, 1)
        if not fitting:
            wanted = f"{self._platform.os}/{self._platform.architecture}"
            hint = f"architecture and os of the image choose among these; {self._key}.image can be another layout"
            there = ", ".join(sorted(self._seen))
            raise ParentError(f"holds no image for {wanted}, only for: {there[:500] or 'nothing'}", where=where, hint=hint)
        exact = [one for one in fitting if one.platform.get("variant") == self._platform.variant]
        return (exact or fitting)[0]

    def _fitting(self, index: dict[str, Any], where: str, depth: int) -> list[ReadDescriptor]:
        if depth > NESTING:
            raise ParentError(f"is an index within an index, {NESTING} deep", where=where)
        found = []
        for descriptor in parse_descriptors(index, "manifests", where):
            if descriptor.platform and descriptor.media_type not in INDEXES:
                found += [descriptor] if self._fits(descriptor.platform) else []
            elif not descriptor.platform or self._fits(descriptor.platform):
                found += self._look_inside(descriptor, depth)
        return found

    def _look_inside(self, descriptor: ReadDescriptor, depth: int) -> list[ReadDescriptor]:
        self._documents_left -= 1
        if self._documents_left < 0:
            return []
        document = self._source.document(descriptor)
        if is_index(descriptor, document):
            return self._fitting(document, str(self._source.blob_path(descriptor.digest)), depth + 1)
        found = descriptor._replace(platform=_platform_inside(self._source, descriptor, document))
        return [found] if self._fits(found.platform) else []

    def _fits(self, platform: dict[str, Any]) -> bool:
        self._seen.add(f"{platform.get('os', '?')}/{platform.get('architecture', '?')}")
        wanted = self._platform
        return (
            platform.get("os") == wanted.os
            and platform.get("architecture") == wanted.architecture
            and (wanted.variant is None or platform.get("variant") in (None, wanted.variant))
        )


def _platform_inside(source: Source, descriptor: ReadDescriptor, document: dict[str, Any]) -> dict[str, Any]:
    """The platform that the config of the image with the manifest DOCUMENT says; nothing where it is no image."""
    if not isinstance(document.get("config"), dict):
        return {}
    config = parse_descriptor(document["config"], f"{source.blob_path(descriptor.digest)}: config")
    if config.media_type not in CONFIGS:
        return {}
    content = source.document(config)
    return {key: content[key] for key in ("os", "architecture", "variant") if isinstance(content.get(key), str)}


def check_parent(image: str, number: int, platform: Platform) -> None:
    """Look whether image NUMBER of the layout IMAGE could be a parent: all of its documents, and that its layers are there. ParentError."""
    source = Source(Path(image))
    for layer in read_manifest(source, number, platform).layers:
        with source.blob(layer):
            pass


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
