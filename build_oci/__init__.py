"""Builds OCI container images from root file system directories."""

from build_oci.version import __version__

__all__ = ["__version__"]
