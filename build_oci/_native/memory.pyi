"""Large pieces of memory: what a build takes, gives back and takes again all the time."""

def uninitialised_bytearray(size: int) -> bytearray:
    """SIZE bytes to be written to, of any content: bytearray() would first write zeros to all of
    them, while everybody waits.
    """

def probe_allocation(size: int) -> None:
    """MemoryError if SIZE bytes cannot be had now: for the sake of a library that does not look
    whether it gets them.
    """

def use_single_heap(largest: int) -> None:
    """From now on, all threads of this process take their memory from one heap, which keeps up to
    32 MiB at its end that nobody uses.

    A heap for each thread would keep as much for each; and without any, the system clears every
    page anew whenever a codec asks for it (4 % of the time of a build with zstd, 3 % with gzip).
    Pieces of more than LARGEST bytes, 32 MiB at most, come from the system all the same. For those
    threads that start later; with glibc only.
    """
