/*
 * libFuzzer target of the walk over deflate streams: whatever the bytes, nothing is read outside
 * them, two streams side by side come to what each comes to alone, and what zlib can inflate is
 * walked and made to go on.
 */
#include "deflate.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* Bytes that DATA stands for, or -1 if it is not one whole stream and nothing else. KEEP, if not
 * NULL, has room for them. */
static int64_t inflated(const uint8_t *data, size_t size, uint8_t *keep, size_t room)
{
    uint8_t scratch[32768];
    z_stream z = {.next_in = (Bytef *)data, .avail_in = (uInt)size};
    int end;
    if (inflateInit2(&z, -15) != Z_OK)
        abort();
    do {
        z.next_out = keep ? keep + z.total_out : scratch;
        z.avail_out = keep ? (uInt)(room - z.total_out) : (uInt)sizeof scratch;
        end = inflate(&z, Z_NO_FLUSH);
    } while (end == Z_OK && !keep);
    int64_t total = end == Z_STREAM_END && !z.avail_in ? (int64_t)z.total_out : -1;
    inflateEnd(&z);
    return total;
}

/* A copy of its own, so that reading past a stream is seen. */
static uint8_t *copied(const uint8_t *data, size_t size, size_t room)
{
    uint8_t *copy = malloc(size + room);
    if (!copy && size + room)
        abort();
    if (size)
        memcpy(copy, data, size);
    return copy;
}

static int same(const deflate_shape *a, const deflate_shape *b)
{
    return a->last_block == b->last_block && a->end == b->end;
}

/* Walks the stream alone; -1 if it is refused. */
static int alone(const uint8_t *data, size_t size, deflate_shape *shape)
{
    static const uint8_t empty[] = {3, 0};
    deflate_shape other;
    int end = deflate_walk_two(data, size, shape, empty, sizeof empty, &other);
    int64_t bytes = inflated(data, size, NULL, 0);
    if (bytes < 0)
        return end; /* zlib refuses more: distances that lead nowhere, codes with gaps */
    if (end)
        abort();
    uint8_t *longer = copied(data, size, DEFLATE_FLUSH_ROOM + sizeof empty),
            flush[DEFLATE_FLUSH_ROOM];
    size_t more = deflate_make_joinable(longer, size, shape, flush), used = size + more;
    memcpy(longer + size, flush, more);
    memcpy(longer + used, empty, sizeof empty);
    if (bytes < 1 << 20) {
        uint8_t *before = malloc((size_t)bytes + 1), *after = malloc((size_t)bytes + 1);
        if (inflated(data, size, before, (size_t)bytes + 1) != bytes ||
            inflated(longer, used + 2, after, (size_t)bytes + 1) != bytes ||
            memcmp(before, after, (size_t)bytes))
            abort();
        free(before);
        free(after);
    } else if (inflated(longer, used + 2, NULL, 0) != bytes) {
        abort();
    }
    free(longer);
    return 0;
}

/* The first two bytes say where the second stream begins. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    size_t at = (data[0] | data[1] << 8) % (size - 1);
    data += 2;
    size -= 2;
    uint8_t *first = copied(data, at, 0), *second = copied(data + at, size - at, 0);
    deflate_shape one, two, one_alone, two_alone;
    int both = deflate_walk_two(first, at, &one, second, size - at, &two);
    int apart = alone(first, at, &one_alone) | alone(second, size - at, &two_alone);
    if ((both != 0) != (apart != 0) ||
        (!both && (!same(&one, &one_alone) || !same(&two, &two_alone))))
        abort();
    free(first);
    free(second);
    return 0;
}
