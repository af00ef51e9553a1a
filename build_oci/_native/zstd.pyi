from typing_extensions import Buffer

def continued(frame: Buffer, limit: int = ...) -> list[bytes | memoryview] | None:
    """The blocks of FRAME, one whole zstd frame (RFC 8878), in pieces that continue any other blocks of one longer frame.

    None of them is marked as the last, and none depends on what came before. FRAME has no checksum, tells no content size and names no
    dictionary; the window of the longer frame must be as large as its own. None if a block, made anew for that, would reach LIMIT bytes, at
    most 128 KiB (the default): then the data must be stored some other way. Lets other threads run.

    ValueError if FRAME is not such a frame, MemoryError.
    """
