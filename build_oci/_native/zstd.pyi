from typing_extensions import Buffer

def make_joinable(frame: Buffer, plain: Buffer, limit: int = ...) -> list[bytes | memoryview]:
    """The blocks of FRAME, one whole zstd frame (RFC 8878) of PLAIN, in pieces that continue any
    other blocks of one longer frame.

    None of them is marked as the last, and none depends on what came before. FRAME has no checksum,
    tells no content size and names no dictionary; the window of the longer frame must be as large
    as its own. A block that had to be made anew, and would reach LIMIT bytes, at most 128 KiB (the
    default), becomes one that holds its bytes as they are. Lets other threads run.

    ValueError if FRAME is not such a frame, MemoryError.
    """
