"""Deflate streams that were made apart, joined: their ends are found without unpacking them."""

from typing_extensions import Buffer

def make_joinable(first: bytearray, second: bytearray | None = None) -> None:
    """Change FIRST, a whole raw deflate stream (RFC 1951), so that another may follow it. The same
    with SECOND.

    The mark of its last block is cleared, and an empty stored block ends it on a whole byte (as
    zlib's full flush does). Two at once take less time than one and one. Releases the GIL.

    ValueError if one is not a whole, well-formed stream; then both are as they were.
    """

def is_incompressible(data: Buffer) -> bool:
    """Is DATA, of less than 4 GiB, something that deflate makes hardly smaller (by 2 % at the
    most), such as what is compressed already?

    Bytes of all values are then about as frequent, and hardly any are repeated within 32 KiB. Lets
    other threads run.
    """
