from typing_extensions import Buffer

def continued(stream: Buffer, size: int) -> bytes:
    """STREAM, one whole raw deflate stream (RFC 1951) of SIZE bytes of data, made so that another can follow it.

    Its last block is no longer marked as the last, and an empty stored block ends it on a whole byte: what zlib calls a full flush where
    the stream that follows looks back no further. Lets other threads run.

    ValueError if STREAM is not one whole, well-formed stream, or stands for another number of bytes.
    """
