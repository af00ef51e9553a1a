"""The digest of one message that comes in pieces, by what is quickest for it on this CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import hashlib

    from typing_extensions import Buffer


class Hash(Protocol):
    """The digest of a message that comes in pieces."""

    def update(self, data: Buffer, /) -> None: ...
    def digest(self) -> bytes: ...


def new_hash(algorithm: str = "sha256") -> Hash:
    """A Hash of the ALGORITHM that a digest names."""
    from build_oci._native import sha256

    # Elsewhere OpenSSL's code for one message is quicker than ours.
    if algorithm == "sha256" and sha256.in_pairs():
        return sha256.Sha256()
    return openssl_hash(algorithm)


def openssl_hash(algorithm: str) -> hashlib._Hash:
    """hashlib.new(ALGORITHM). OpenSSL is loaded where it is needed first: that takes 5 ms, and in a
    sandbox of BuildStream 12. Raises ImportError or OSError where too many files are open.

    hashlib itself would print tracebacks there, and then know no algorithm: it does without every
    module that it cannot import.
    """
    try:
        from _hashlib import new
    except ModuleNotFoundError:  # a Python that was built without OpenSSL
        from hashlib import new  # type: ignore[assignment]
    return new(algorithm)
