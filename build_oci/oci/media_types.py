"""The media types of the OCI image format, and those of Docker that mean the same; which codec a
layer's type stands for.
"""

from __future__ import annotations

MEDIA_TYPE_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_TYPE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_TYPE_CONFIG = "application/vnd.oci.image.config.v1+json"
# Of the config of an artifact that has none.
MEDIA_TYPE_EMPTY = "application/vnd.oci.empty.v1+json"
LAYER_MEDIA_TYPES = {
    "disabled": "application/vnd.oci.image.layer.v1.tar",
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
}
# Docker's words for the same documents.
INDEXES = (MEDIA_TYPE_INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = (MEDIA_TYPE_MANIFEST, "application/vnd.docker.distribution.manifest.v2+json")
CONFIGS = (MEDIA_TYPE_CONFIG, "application/vnd.docker.container.image.v1+json")

_OCI_LAYER = "application/vnd.oci.image.layer."
_DOCKER_LAYER = "application/vnd.docker.image.rootfs."
# Every media type of a layer that can be read -> its codec.
CODECS = {
    **{media_type: codec for codec, media_type in LAYER_MEDIA_TYPES.items()},
    _OCI_LAYER + "nondistributable.v1.tar": "disabled",
    _OCI_LAYER + "nondistributable.v1.tar+gzip": "gzip",
    _OCI_LAYER + "nondistributable.v1.tar+zstd": "zstd",
    _DOCKER_LAYER + "diff.tar": "disabled",
    _DOCKER_LAYER + "diff.tar.gzip": "gzip",
    _DOCKER_LAYER + "diff.tar.zstd": "zstd",
    _DOCKER_LAYER + "foreign.diff.tar.gzip": "gzip",
}

# The annotation of a descriptor in an index that clients look an image up by.
REF_NAME_KEY = "org.opencontainers.image.ref.name"
# The annotation, there, of an image whose layers are zstd, where the same image is there with gzip:
# clients that know it prefer this one.
ZSTD_KEY = "io.github.containers.compression.zstd"

# The last second of the year 9999: `created` has room for four digits.
LAST_EPOCH = 253402300799
