/*
 * libFuzzer target of the comparison of two images (contract: promise-hostile-input): whatever the
 * layers hold, no undefined behaviour and an end; equal images differ in nothing; and what one
 * direction calls added is removed in the other.
 *
 * An input: a byte of choices, two bytes that say where the second archive begins, two archives.
 */
#define TAR_MUTATOR_SKIP 3

#include "compare.h"
#include "reader.h"
#include "tar_mutator.h"

#include <stdlib.h>
#include <string.h>

enum {
    MEMORY = 8 << 20,
    FIRST_HEADER = TAR_MUTATOR_SKIP,
    LAYERS = 2,
    AT_ONCE = 7, /* differences that one call may give: few, so that walks go on often */
    KINDS = NAME_MOVED_OUT + 1,
};

/* Which of the two archives each layer of an image is; both have as many. */
typedef struct image {
    const tar_reader *layers[LAYERS];
    uint32_t count;
    int complete;
} image;

static tar_reader *read_all(const uint8_t *data, size_t size)
{
    tar_reader *r = tar_reader_new(sha256_kernel_at(SHA256_SCALAR), MEMORY, 0);
    if (!r)
        abort();
    tar_reader_keep_whole(r);
    tar_reader_feed(r, data, size);
    if (!tar_reader_finish(r))
        return r;
    tar_reader_free(r);
    return NULL;
}

static void add(compare *c, int side, const image *from)
{
    for (uint32_t i = 0; i < from->count; i++) {
        size_t count;
        const member *members = tar_reader_members(from->layers[i], &count);
        if (compare_begin_layer(c, side, i) || compare_add(c, members, count))
            abort();
    }
}

/* Looks at one answer, as the caller in Python does. */
static void see(const difference *d, size_t kinds[KINDS])
{
    if (d->what >= KINDS || (d->what != NAME_CHANGED && d->what != NAME_MOVED_IN && d->bits))
        abort();
    size_t size = compare_path(d->node, NULL);
    char *path = malloc(size + 1);
    if (!path || compare_path(d->node, path) != size || memchr(path, 0, size))
        abort();
    free(path);
    if (d->old && d->old->node != d->node)
        abort();
    kinds[d->what]++;
}

static void compare_images(const image *old, const image *new, size_t kinds[KINDS])
{
    compare *c = compare_new(MEMORY, old->complete, new->complete);
    difference found[AT_ONCE];
    int ended = 0;
    if (!c)
        abort();
    add(c, COMPARE_OLD, old);
    add(c, COMPARE_NEW, new);
    memset(kinds, 0, KINDS * sizeof *kinds);
    for (compare_start(c, 1); !ended;)
        for (size_t i = compare_walk(c, found, AT_ONCE, &ended); i--;)
            see(&found[i], kinds);
    for (uint32_t layer = 0; layer < new->count; layer++) {
        size_t of_layer[KINDS] = {0};
        uint32_t counterpart = compare_counterpart(c, layer);
        if (counterpart != COMPARE_NO_LAYER && counterpart >= old->count)
            abort();
        compare_start_layer(c, layer, counterpart);
        for (ended = 0; !ended;)
            for (size_t i = compare_walk_layer(c, found, AT_ONCE, &ended); i--;)
                see(&found[i], of_layer);
        compare_same_order(c);
    }
    compare_free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < FIRST_HEADER)
        return 0;
    size_t left = size - FIRST_HEADER, at = (size_t)(data[1] | data[2] << 8) % (left + 1);
    unsigned choices = data[0];
    tar_reader *first = read_all(data + FIRST_HEADER, at),
               *second = read_all(data + FIRST_HEADER + at, left - at);
    if (first && second) {
        size_t there[KINDS], back[KINDS];
        image old = {{first, second}, 1 + (choices & 1), choices >> 2 & 1},
              new = {{second, first}, 1 + (choices >> 1 & 1), choices >> 3 & 1};
        compare_images(&old, &new, there);
        compare_images(&new, &old, back);
        if (there[NAME_ADDED] != back[NAME_REMOVED] || there[NAME_REMOVED] != back[NAME_ADDED] ||
            there[NAME_CHANGED] != back[NAME_CHANGED])
            abort();
        compare_images(&old, &old, there);
        if (there[NAME_ADDED] || there[NAME_REMOVED] || there[NAME_CHANGED])
            abort();
    }
    if (first)
        tar_reader_free(first);
    if (second)
        tar_reader_free(second);
    return 0;
}
