"""The digests of OpenSSL, which is loaded where it is needed first: that takes 5 ms, and in a
sandbox of BuildStream 12.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import hashlib


def new_hash(algorithm: str = "sha256") -> hashlib._Hash:
    """hashlib.new(ALGORITHM). Raises ImportError or OSError where too many files are open.

    hashlib itself would print tracebacks there, and then know no algorithm: it does without every
    module that it cannot import.
    """
    try:
        from _hashlib import new
    except ModuleNotFoundError:  # a Python that was built without OpenSSL
        from hashlib import new  # type: ignore[assignment]
    return new(algorithm)
