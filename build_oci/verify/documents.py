"""The documents of a layout: `oci-layout`, indexes, manifests and image configs, held against their
form and against each other.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from typing import Any

from build_oci.errors import ParentError, counted
from build_oci.oci.fields import descriptor_findings, image_findings
from build_oci.oci.manifest import NESTING
from build_oci.oci.media_types import (
    CODECS,
    CONFIGS,
    INDEXES,
    MANIFESTS,
    MEDIA_TYPE_EMPTY,
    MEDIA_TYPE_INDEX,
)
from build_oci.oci.untrusted import ReadDescriptor, Source, parse_descriptor, parse_document
from build_oci.records import NamedTuple
from build_oci.verify.blobs import Blobs
from build_oci.verify.bootc import boot_labels
from build_oci.verify.findings import Findings, shown

# RFC 3339, as clients parse a time.
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)

# RFC 6838, section 4.2.
_MEDIA_TYPE = re.compile(
    r"[A-Za-z0-9-][\w!#$&^.+-]{0,126}/[A-Za-z0-9-][\w!#$&^.+-]{0,126}", re.ASCII
)


class CheckedImage(NamedTuple):
    """What its documents say of an image.

    A layer is None where its descriptor is none, a diff_id where it is no digest.
    """

    where: str
    layers: list[ReadDescriptor | None]
    diff_ids: list[str | None]
    labels: dict[str, str]  # those that tell of booting


class Documents:
    """Looks through the documents of one layout. `images` counts the images."""

    def __init__(self, source: Source, blobs: Blobs, findings: Findings) -> None:
        self.images = 0
        self._source = source
        self._blobs = blobs
        self._findings = findings
        self._types: dict[
            str, Any
        ] = {}  # of the manifests and indexes that have been looked at: their media types
        self._platforms: dict[str, dict[str, Any]] = {}  # and, of images, their platforms

    def layout_file(self) -> None:
        where = self._source.path / "oci-layout"
        with self._findings.caught(), self._source.part("oci-layout") as part:
            document = parse_document(part.read(1 << 16), str(where))
            if document.get("imageLayoutVersion") != "1.0.0":
                self._findings.problem(
                    where,
                    f"imageLayoutVersion is {shown(document.get('imageLayoutVersion'))}, not"
                    " “1.0.0”",
                )

    def read(self) -> Iterator[CheckedImage]:
        """The images whose layers are to be read, in the order of the documents."""
        index = None
        with self._findings.caught():
            index = self._source.index()
        if index is not None:
            where = str(self._source.path / "index.json")
            if index.get("mediaType", MEDIA_TYPE_INDEX) not in INDEXES:
                self._findings.problem(
                    where, f"mediaType is {shown(index['mediaType'])}, which is none of an index"
                )
            yield from self._index(index, where, 0)

    def _index(self, document: dict[str, Any], where: str, depth: int) -> Iterator[CheckedImage]:
        self._schema_version(document, where)
        self._annotations(document, where)
        if "layers" in document or "config" in document:
            self._findings.problem(
                where, "is an index and has “layers” or “config” as if it were a manifest"
            )
        descriptors = self._descriptors(document, "manifests", where)
        document.clear()  # of an index within an index within … only the descriptors are held
        listed = [descriptor for descriptor in descriptors if descriptor is not None]
        # `docker save` keeps the index of an image for many platforms and saves only what it has.
        here = [item for item in listed if not (depth and self._blobs.is_missing(item.digest))]
        if listed and not here:
            self._findings.problem(where, "is an index, and nothing that it lists is here")
        elif len(here) < len(listed):
            missing = counted(len(listed) - len(here), "manifest")
            self._findings.note(where, f"lists {missing} that the layout does not hold")
        for descriptor in here:
            yield from self._manifest_or_index(descriptor, depth)

    def _manifest_or_index(self, descriptor: ReadDescriptor, depth: int) -> Iterator[CheckedImage]:
        where = str(self._source.blob_path(descriptor.digest))
        if descriptor.digest in self._types:
            # As often as hostile indexes refer to it, it is looked at once.
            if self._blobs.fitted(descriptor):
                self._media_type(self._types[descriptor.digest], descriptor, where)
                self._platform(descriptor, self._platforms.get(descriptor.digest))
            return
        self._types[descriptor.digest] = descriptor.media_type
        if depth == NESTING:
            self._findings.problem(where, f"is an index within an index, {NESTING} deep")
            return
        known = descriptor.media_type in (*INDEXES, *MANIFESTS)
        document = self._blobs.document(descriptor, quietly=not known)
        if document is None:
            return
        media_type = document.get("mediaType", descriptor.media_type)
        self._types[descriptor.digest] = media_type
        self._media_type(media_type, descriptor, where)
        if media_type in INDEXES:
            yield from self._index(document, where, depth + 1)
        elif media_type in MANIFESTS:
            yield from self._manifest(descriptor, document, where, depth)
        elif known or media_type != descriptor.media_type:
            self._findings.problem(
                where, f"{shown(media_type)} is neither an image manifest nor an index"
            )
        else:
            self._findings.note(where, f"is no image but of the type {shown(media_type)}")

    def _manifest(
        self, descriptor: ReadDescriptor, document: dict[str, Any], where: str, depth: int
    ) -> Iterator[CheckedImage]:
        self._schema_version(document, where)
        self._annotations(document, where)
        if "manifests" in document:
            self._findings.problem(
                where, "is a manifest and has “manifests” as if it were an index"
            )
        if document.get("subject") is not None:
            # The manifest that this one is about may be anywhere.
            subject = self._descriptor(document["subject"], f"{where}: subject")
            if subject and self._source.has_blob(subject.digest):
                self._blobs.is_right(subject)
        config = self._descriptor(document.get("config"), f"{where}: config")
        layers = self._descriptors(document, "layers", where)
        parts = [part for part in (config, *layers) if part is not None]
        if depth and parts and all(self._blobs.is_missing(part.digest) for part in parts):
            self._findings.note(where, "is here without its config and its layers")
            return
        if config is None or config.media_type in CONFIGS:
            content = self._blobs.document(config) if config else None
            if not _is_attestation(descriptor, content, layers):
                self.images += 1
                yield self._image(descriptor, content, config, where, layers)
                return
        else:
            self._blobs.is_right(config)
        if config and config.media_type == MEDIA_TYPE_EMPTY and not document.get("artifactType"):
            self._findings.problem(where, "has an empty config and no artifactType")
        artifact = document.get("artifactType") or (config.media_type if config else "")
        self._findings.note(where, f"is no image but an artifact of the type {shown(artifact)}")
        for layer in filter(None, layers):
            self._blobs.is_right(layer)

    def _image(
        self,
        descriptor: ReadDescriptor,
        content: dict[str, Any] | None,
        config: ReadDescriptor | None,
        manifest: str,
        layers: list[ReadDescriptor | None],
    ) -> CheckedImage:
        """The image with the config CONTENT, None where there is none that can be read."""
        if content is None or config is None:
            return CheckedImage(manifest, layers, [None] * len(layers), {})
        where = str(self._source.blob_path(config.digest))
        for key in ("architecture", "os"):
            if not isinstance(content.get(key), str) or not content[key]:
                self._findings.problem(where, f"has no “{key}”")
        platform = {
            key: content.get(key) for key in ("architecture", "os", "variant", "os.version")
        } | {"where": where}
        self._platforms[descriptor.digest] = platform
        self._platform(descriptor, platform)
        self._created(content, where)
        for name, what in image_findings(content):
            self._findings.problem(where, f"{name} {what}")
        rootfs = content.get("rootfs")
        if not isinstance(rootfs, dict) or rootfs.get("type") != "layers":
            self._findings.problem(where, "rootfs.type is not “layers”")
        history = content.get("history")
        if isinstance(history, list) and history:
            for number, entry in enumerate(history):
                if not isinstance(entry, dict):
                    self._findings.problem(where, f"history[{number}] is no object")
            made = sum(
                1
                for entry in history
                if not (isinstance(entry, dict) and entry.get("empty_layer") is True)
            )
            if made != len(layers):
                self._findings.problem(
                    where,
                    f"history tells of {counted(made, 'layer')}, but the manifest has"
                    f" {len(layers)}",
                )
        elif history:
            self._findings.problem(where, "history is no list")
        return CheckedImage(
            where, layers, self._diff_ids(rootfs, where, len(layers)), boot_labels(content)
        )

    def _diff_ids(self, rootfs: Any, where: str, layers: int) -> list[str | None]:
        """Those of the layers; None for what is no digest, or if there are not as many as
        layers.
        """
        items = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        if items is None and not layers:
            return []
        found: list[str | None] = []
        for number, item in enumerate(items if isinstance(items, list) else ()):
            # A diff_id is a digest with nothing around it.
            digest = self._descriptor(
                {"mediaType": "-/-", "digest": item, "size": 0},
                f"{where}: rootfs.diff_ids[{number}]",
            )
            found.append(digest.digest if digest else None)
        if len(found) == layers:
            return found
        count = counted(len(found), "diff_id") if isinstance(items, list) else "no diff_ids"
        self._findings.problem(
            where, f"names {count}, but the manifest has {counted(layers, 'layer')}"
        )
        return [None] * layers

    def _media_type(self, media_type: Any, descriptor: ReadDescriptor, where: str) -> None:
        if media_type != descriptor.media_type and descriptor.media_type:
            self._findings.problem(
                where,
                f"mediaType is {shown(media_type)}, but its descriptor says"
                f" {shown(descriptor.media_type)}",
            )

    def _platform(self, descriptor: ReadDescriptor, platform: dict[str, Any] | None) -> None:
        """Hold what the descriptor of a manifest says against the PLATFORM of the image's
        config.
        """
        if platform is None:
            return
        for key in ("architecture", "os", "variant", "os.version"):
            said, found = descriptor.platform.get(key), platform[key]
            # Configs of older builders leave the last two out.
            if (
                said is None
                or said == found
                or (found is None and key in ("variant", "os.version"))
            ):
                continue
            what = f"{key} is {shown(found)}, but the descriptor of its manifest says {shown(said)}"
            self._findings.problem(platform["where"], what)

    def _annotations(self, document: dict[str, Any], where: str) -> None:
        """Those of a manifest or an index: Go clients refuse the whole document where one is no
        string.
        """
        annotations = document.get("annotations")
        if annotations is None:
            return
        if not isinstance(annotations, dict):
            self._findings.problem(where, "its annotations are no object")
            return
        for name, value in annotations.items():
            if not isinstance(value, str):
                self._findings.problem(where, f"its annotation {shown(name)} is no string")

    def _created(self, content: dict[str, Any], where: str) -> None:
        """The times of a config."""
        for place, entry in [
            ("", content),
            *((f"history[{n}].", e) for n, e in enumerate(_list(content.get("history")))),
        ]:
            created = entry.get("created") if isinstance(entry, dict) else None
            if created is not None and not (isinstance(created, str) and _TIME.fullmatch(created)):
                self._findings.problem(
                    where, f"{place}created is {shown(created)}, which is no time"
                )

    def _schema_version(self, document: dict[str, Any], where: str) -> None:
        version = document.get("schemaVersion")
        if version != 2 or isinstance(version, bool):
            self._findings.problem(where, f"schemaVersion is {shown(version)}, not 2")

    def _descriptors(
        self, document: dict[str, Any], key: str, where: str
    ) -> list[ReadDescriptor | None]:
        items = document.get(key)
        if not isinstance(items, list):
            self._findings.problem(where, f"has no list “{key}”")
            return []
        return [
            self._descriptor(item, f"{where}: {key}[{number}]") for number, item in enumerate(items)
        ]

    def _descriptor(self, item: Any, where: str) -> ReadDescriptor | None:
        """ITEM as a descriptor; None where it is none."""
        with self._findings.caught():
            try:
                found = parse_descriptor(item, where)
            except RecursionError:
                raise ParentError("is no descriptor", where=where) from None
            if not found.media_type:
                self._findings.problem(where, "its descriptor has no mediaType")
            elif not _MEDIA_TYPE.fullmatch(found.media_type):
                self._findings.problem(where, f"{shown(found.media_type)} is no media type")
            for name, what in descriptor_findings(item):
                self._findings.problem(where, f"{name} {what}")
            if (data := item.get("data")) is not None:
                self._embedded(data, found, where)
            return found
        return None

    def _embedded(self, data: Any, descriptor: ReadDescriptor, where: str) -> None:
        """A descriptor may carry a copy of its blob."""
        try:
            content = base64.b64decode(data, validate=True)
        except (TypeError, ValueError):
            self._findings.problem(where, "its data is not base64")
            return
        algorithm, _, expected = descriptor.digest.partition(":")
        if (
            len(content) != descriptor.size
            or hashlib.new(algorithm, content).hexdigest() != expected
        ):
            self._findings.problem(where, "its data is not what its digest and size say")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_attestation(
    descriptor: ReadDescriptor, config: dict[str, Any] | None, layers: list[ReadDescriptor | None]
) -> bool:
    """Is it an attestation or a signature stored as an image manifest?

    BuildKit and cosign put those beside the images they are about.
    """
    if descriptor.annotations.get("vnd.docker.reference.type") == "attestation-manifest":
        return True
    unnamed = config is not None and all(
        config.get(key) in (None, "", "unknown") for key in ("architecture", "os")
    )
    return (
        unnamed
        and bool(layers)
        and not any(layer is None or layer.media_type in CODECS for layer in layers)
    )
