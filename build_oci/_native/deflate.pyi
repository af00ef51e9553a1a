from typing_extensions import Buffer

def continued(first: Buffer, first_size: int, second: Buffer = ..., second_size: int = 0) -> bytes:
    """FIRST and SECOND, each a whole raw deflate stream (RFC 1951) of that many bytes of data, one after the other and made to go on.

    Their last blocks are no longer marked as the last, and an empty stored block ends each on a whole byte: what zlib calls a full flush
    where the stream that follows looks back no further. Two at once take less time than one and one. SECOND is empty by default.
    Lets other threads run.

    ValueError if one is not a whole, well-formed stream, or stands for another number of bytes.
    """

def looks_packed(data: Buffer) -> bool:
    """Is DATA, of less than 4 GiB, something that deflate makes hardly smaller (by 2 % at the most), such as what is compressed already?

    Bytes of all values are then about as frequent, and hardly any are repeated within 32 KiB. Lets other threads run.
    """

def check_room(size: int) -> None:
    """MemoryError if SIZE bytes cannot be had now: for the sake of a library that does not look whether it gets them."""
