/*
 * Where the content of a file is cut into chunks: the rule of the reference writer of zstd:chunked,
 * so that chunks match across builders.
 *
 * A rolling sum runs over the last 64 bytes (zeros stand before the first byte of a file); a chunk
 * ends after each byte where the low 16 bits of its second half are all ones, 64 KiB apart on
 * average. A run of at least 1024 zero bytes, a hole, is always a chunk of its own and is not cut.
 * The sum is a function of the last 64 bytes alone, so any part of a file can be cut with no more
 * than what surrounds it:
 *
 *       before (<= 1024 bytes)          the part                     after (<= 1024 bytes)
 *     [ ........................ | .............................. | ..................... ]
 *       the window and the zeros                                    the zeros of a hole that
 *       of a hole that began earlier                                goes on
 */
#ifndef BUILD_OCI_ROLLING_H
#define BUILD_OCI_ROLLING_H

#include <stddef.h>
#include <stdint.h>

enum { ROLLING_WINDOW = 64, HOLE_MIN = 1024 };

/* A run of bytes in a part. */
typedef struct cut {
    size_t start, size;
    int is_hole;
} cut;

typedef struct cuts {
    cut *items;
    size_t count, capacity;
} cuts;

/*
 * Adds the chunks of the SIZE > 0 bytes at DATA to OUT, whose starts count from DATA. BEFORE are
 * the bytes in front of them (up to HOLE_MIN, all there are of the file if fewer), AFTER those
 * behind them. The last chunk of a part may go on in the next part. *STARTS_CHUNK says whether a
 * chunk begins at DATA, or one of the part before goes on. -1 without memory.
 */
int rolling_cut(cuts *out, const uint8_t *data, size_t size, const uint8_t *before,
                size_t before_size, const uint8_t *after, size_t after_size, int *starts_chunk);

#endif
