#include "arena.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Chunks double from the first size to the last, because there are images of thousands of small
 * layers, with an arena each. */
enum { FIRST_CHUNK = 1024, CHUNK = 256 * 1024, ALIGNMENT = 16 };

struct arena_chunk {
    arena_chunk *older;
    size_t size, used;
    _Alignas(16) uint8_t bytes[];
};

static void *take(arena *a, size_t size, size_t alignment)
{
    arena_chunk *chunk = a->chunks;
    if (chunk) {
        size_t at = (chunk->used + alignment - 1) & ~(alignment - 1);
        assert(chunk->used <= chunk->size);
        if (at <= chunk->size && size <= chunk->size - at) {
            chunk->used = at + size;
            return chunk->bytes + at;
        }
    }
    if (size > SIZE_MAX / 2)
        return NULL;
    int alone = size > CHUNK / 4;
    size_t usual = 2 * a->held < FIRST_CHUNK ? FIRST_CHUNK
                   : 2 * a->held < CHUNK     ? 2 * a->held
                                             : CHUNK;
    size_t room = alone || size > usual ? size : usual;
    arena_chunk *fresh = malloc(sizeof *fresh + room);
    if (!fresh)
        return NULL;
    a->held += sizeof *fresh + room;
    fresh->size = room;
    fresh->used = size;
    if (alone && chunk) {
        /* A piece that fills a chunk of its own leaves the current one in use. */
        fresh->older = chunk->older;
        chunk->older = fresh;
    } else {
        fresh->older = chunk;
        a->chunks = fresh;
    }
    return fresh->bytes;
}

void *arena_take(arena *a, size_t size)
{
    return take(a, size, ALIGNMENT);
}

void *arena_take_bytes(arena *a, size_t size)
{
    return take(a, size, 1);
}

char *arena_copy(arena *a, const void *data, size_t size)
{
    char *copy = take(a, size + 1, 1);
    if (!copy)
        return NULL;
    if (size)
        memcpy(copy, data, size);
    copy[size] = 0;
    return copy;
}

void arena_release(arena *a)
{
    arena_chunk *chunk = a->chunks;
    while (chunk) {
        arena_chunk *older = chunk->older;
        free(chunk);
        chunk = older;
    }
    a->chunks = NULL;
    a->held = 0;
}
