"""The documents of the OCI image format 1.1: descriptors, image config, manifest, index."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from build_oci.oci.media_types import MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST
from build_oci.records import NamedTuple

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class Platform(NamedTuple):
    """What an image runs on, with GOARCH and GOOS names."""

    architecture: str
    os: str
    os_version: str | None = None
    os_features: Sequence[str] | None = None
    variant: str | None = None

    def __str__(self) -> str:
        """`linux/arm64/v8`, as clients write it."""
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    def document(self) -> dict[str, Any]:
        return _without_absent(
            {
                "architecture": self.architecture,
                "os": self.os,
                "os.version": self.os_version,
                "os.features": self.os_features,
                "variant": self.variant,
            }
        )


class Descriptor(NamedTuple):
    """What one document says of a blob: digest as `algorithm:hex`, size in bytes."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = MappingProxyType({})

    def document(self) -> dict[str, Any]:
        return _without_absent(
            {
                "mediaType": self.media_type,
                "digest": self.digest,
                "size": self.size,
                "platform": self.platform.document() if self.platform else None,
                "annotations": dict(self.annotations) or None,
            }
        )


def image_config(
    platform: Platform,
    *,
    created: int,
    author: str | None,
    config: Any,
    has_config: bool,
    diff_ids: Sequence[str],
    history: Sequence[Any],
) -> bytes:
    """The image configuration; `created` in seconds since 1970, `config` whatever the user wrote,
    if `has_config`.
    """
    document = _without_absent(
        {
            "created": timestamp(created),
            "author": author,
            "architecture": platform.architecture,
            "variant": platform.variant,
            "os": platform.os,
            "os.version": platform.os_version,
            "os.features": platform.os_features,
        }
    )
    if has_config:
        document["config"] = config
    document["rootfs"] = {"type": "layers", "diff_ids": list(diff_ids)}
    document["history"] = list(history)
    return to_json(document)


def history_entry(
    *, created: int, has_layer: bool, author: str | None, comment: str | None
) -> dict[str, Any]:
    """What this build adds to the history; `created` in seconds since 1970, without which clients
    show the year 1 or fail.
    """
    return _without_absent(
        {
            "empty_layer": None if has_layer else True,
            "created": timestamp(created),
            "created_by": "build-oci",
            "author": author,
            "comment": comment,
        }
    )


def timestamp(seconds: int) -> str:
    """SECONDS since 1970 as documents tell a time (RFC 3339), in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def manifest(
    config: Descriptor, layers: Sequence[Descriptor], annotations: Mapping[str, str]
) -> bytes:
    """The manifest of one image."""
    return _annotated(
        {
            "schemaVersion": 2,
            "mediaType": MEDIA_TYPE_MANIFEST,
            "config": config.document(),
            "layers": [layer.document() for layer in layers],
        },
        annotations,
    )


def index(manifests: Sequence[Descriptor], annotations: Mapping[str, str]) -> bytes:
    """The index of a layout."""
    return _annotated(
        {
            "schemaVersion": 2,
            "mediaType": MEDIA_TYPE_INDEX,
            "manifests": [descriptor.document() for descriptor in manifests],
        },
        annotations,
    )


def to_json(document: Any) -> bytes:
    """Compact UTF-8 in the order the keys were put in: the same document is always the same
    bytes.
    """
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(
        "utf-8"
    )


def _annotated(document: dict[str, Any], annotations: Mapping[str, str]) -> bytes:
    return to_json(document | {"annotations": dict(annotations)} if annotations else document)


def _without_absent(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if value is not None}
