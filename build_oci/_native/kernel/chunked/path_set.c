#include "path_set.h"

#include <stdlib.h>
#include <string.h>

/* FNV-1a. */
uint64_t path_hash(const uint8_t *name, size_t size)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t at = 0; at < size;) {
        const uint8_t *slash = memchr(name + at, '/', size - at);
        size_t end = slash ? (size_t)(slash - name) : size;
        if (end > at && !(end == at + 1 && name[at] == '.')) {
            for (size_t i = at; i < end; i++)
                hash = (hash ^ name[i]) * 0x100000001b3u;
            hash = (hash ^ '/') * 0x100000001b3u;
        }
        at = end + 1;
    }
    return hash ^ hash >> 32;
}

static void insert(uint64_t *slots, size_t capacity, uint64_t hash)
{
    size_t at = hash & (capacity - 1);
    while (slots[at])
        at = (at + 1) & (capacity - 1);
    slots[at] = hash;
}

static int grow(path_set *s)
{
    size_t capacity = s->capacity ? 2 * s->capacity : 1024;
    uint64_t *more = calloc(capacity, sizeof *more);
    if (!more)
        return -1;
    for (size_t i = 0; i < s->capacity; i++)
        if (s->slots[i])
            insert(more, capacity, s->slots[i]);
    free(s->slots);
    s->slots = more;
    s->capacity = capacity;
    return 0;
}

path_added path_set_add(path_set *s, uint64_t hash)
{
    hash += !hash;
    if (2 * s->count >= s->capacity && grow(s))
        return PATH_WITHOUT_MEMORY;
    for (size_t at = hash & (s->capacity - 1); s->slots[at]; at = (at + 1) & (s->capacity - 1))
        if (s->slots[at] == hash)
            return PATH_TWICE;
    insert(s->slots, s->capacity, hash);
    s->count++;
    return PATH_NEW;
}

void path_set_free(path_set *s)
{
    free(s->slots);
    *s = (path_set){0};
}
