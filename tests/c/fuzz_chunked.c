/*
 * libFuzzer target of zstd:chunked's splitter and of the parts of its blocks (contract:
 * promise-hostile-input): whatever the bytes, no undefined behaviour; the same blocks however the
 * archive is cut; blocks, frames and tar-split hold every byte of it.
 *
 * Input: two bytes of a limit for blocks, the archive.
 */
#define TAR_MUTATOR_SKIP 2

#include "metadata.h"
#include "splitter.h"
#include "tar_mutator.h"

#include <stdlib.h>
#include <string.h>

typedef struct outcome {
    text lines;      /* tar-split and TOC of all blocks */
    uint64_t bytes;  /* in blocks */
    uint64_t frames; /* bytes in frames */
    const char *problem;
} outcome;

static void check_block(parts *p, const surroundings *around, const uint8_t *data, uint64_t size,
                        outcome *o)
{
    if (parts_cut(p, sha256_kernel_at(SHA256_SCALAR), data, size, splitter_read_surroundings,
                  (void *)around))
        abort();
    uint64_t at = 0;
    uint64_t *packed = calloc(p->frames_count + 1, sizeof *packed);
    for (size_t i = 0; i < p->frames_count; i++) {
        if (p->frames[i].start != at || !p->frames[i].size)
            abort();
        at += packed[i] = p->frames[i].size;
    }
    if (at != size)
        abort();
    o->frames += at;
    parts_tar_split(p, data, &o->lines);
    parts_toc(p, packed, o->bytes + 1, &o->lines);
    const item *opened = parts_opened(p);
    if (opened && (!opened->entry.size || !opened->name.size))
        abort();
    o->bytes += size;
    free(packed);
}

static outcome split(const uint8_t *data, size_t size, uint64_t limit, unsigned seed)
{
    splitter s;
    outcome o = {.bytes = 0};
    uint8_t *open = malloc(size + 1);
    size_t filled = 0, at = 0;
    splitter_begin(&s, limit);
    for (int finished = 0; !finished && !s.problem;) {
        size_t step = size - at;
        seed = seed * 1103515245 + 12345;
        if (seed && step)
            step = 1 + (seed >> 16) % step;
        size_t taken = splitter_feed(&s, data + at, step);
        memcpy(open + filled, data + at, taken);
        filled += taken;
        at += taken;
        if (at == size && !s.full && !s.problem) {
            splitter_finish(&s);
            finished = !s.full || s.full == s.size;
        }
        if (s.problem || !s.full)
            continue;
        if (s.size != filled || s.full > filled)
            abort();
        parts p;
        surroundings around;
        uint64_t full = s.full;
        splitter_take(&s, open, &p, &around);
        check_block(&p, &around, open, full, &o);
        parts_free(&p);
        filled -= full;
        memmove(open, open + full, filled);
    }
    o.problem = s.problem;
    if (!o.problem && (o.bytes != size || o.frames != size || filled))
        abort();
    free(open);
    splitter_free(&s);
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    uint64_t limit = 1 + data[0] + 256 * (data[1] & 31);
    outcome whole = split(data + 2, size - 2, limit, 0);
    outcome cut = split(data + 2, size - 2, limit, (unsigned)size);
    if (whole.problem != cut.problem)
        abort();
    if (!whole.problem && (whole.lines.size != cut.lines.size ||
                           memcmp(whole.lines.at, cut.lines.at, whole.lines.size)))
        abort();
    free(whole.lines.at);
    free(cut.lines.at);
    return 0;
}
