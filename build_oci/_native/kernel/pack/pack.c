#include "pack.h"

#include "digest.h"
#include "grow.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    END_OF_ARCHIVE = 2 * TAR_BLOCK,
    PENDING_BYTES = 1024 * 1024, /* hashed together, while a core's own cache still holds them */
    PENDING_FILES = 256,
    MEMBERS_MAX = 1 << 14, /* of one batch */
};

static segment *add_segment(plan *p, segment_kind kind, size_t first, uint64_t size)
{
    if (GROW(&p->segments, &p->segments_capacity, p->segments_count + 1))
        return NULL;
    segment *s = &p->segments[p->segments_count++];
    assert(size && size % TAR_BLOCK == 0);
    *s = (segment){.kind = kind, .first = first, .count = 1, .size = size};
    p->archive_size += size;
    return s;
}

static int add_large(plan *p, size_t member, uint64_t headers, uint64_t segment_size)
{
    entry *e = p->members[member];
    segment *header = add_segment(p, SEGMENT_HEADER, member, headers);
    if (!header)
        return -1;
    if (!(e->flags & ENTRY_BELIEVED) && !(e->flags & ENTRY_DIGEST_KNOWN && e->fingerprints)) {
        if (!e->fingerprints && tree_take_fingerprints(p->tree, e))
            return -1;
        header->offset = e->size;
    }
    for (uint64_t offset = 0; offset < e->size; offset += segment_size) {
        uint64_t left = e->size - offset;
        segment *slice = add_segment(p, SEGMENT_SLICE, member,
                                     left > segment_size ? segment_size : tar_padded(left));
        if (!slice)
            return -1;
        slice->offset = offset;
    }
    return 0;
}

static int cut_with(plan *p, header_maker *maker, uint64_t segment_size)
{
    int open = 0; /* is the last segment a batch that takes more? */
    for (size_t i = 0; i < p->members_count; i++) {
        const entry *e = p->members[i];
        uint64_t headers = header_size(maker, e);
        if (!headers)
            return -1;
        if (entry_has_content(e)) {
            p->files++;
            p->bytes += e->size;
            if (e->size > segment_size) {
                if (add_large(p, i, headers, segment_size))
                    return -1;
                open = 0;
                continue;
            }
        } else if (S_ISREG(e->mode) && !e->link && !(e->flags & ENTRY_WHITEOUT)) {
            p->files++;
        }
        uint64_t size = headers + (entry_has_content(e) ? tar_padded(e->size) : 0);
        segment *last = open ? &p->segments[p->segments_count - 1] : NULL;
        if (last && last->size + size <= segment_size && last->count < MEMBERS_MAX) {
            last->size += size;
            last->count++;
            p->archive_size += size;
        } else if (!add_segment(p, SEGMENT_BATCH, i, size)) {
            return -1;
        }
        open = 1;
    }
    return add_segment(p, SEGMENT_END, p->members_count, END_OF_ARCHIVE) ? 0 : -1;
}

static int cut(plan *p, uint64_t segment_size)
{
    header_maker maker = {.options = &p->options};
    int status = cut_with(p, &maker, segment_size);
    header_maker_end(&maker);
    return status;
}

/* Fingerprints of slices of another size are of no use. */
static void drop_fingerprints(const partition *layers, uint64_t segment_size)
{
    if (layers->tree->slice_size == segment_size)
        return;
    for (size_t i = 0; i < layers->starts[layers->layers_count]; i++)
        if (S_ISREG(layers->members[i]->mode))
            layers->members[i]->fingerprints = NULL;
    layers->tree->slice_size = segment_size;
}

plan *plan_new(const partition *layers, size_t layer, const header_options *options,
               const sha256_kernel *kernel, uint64_t segment_size)
{
    plan *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->tree = layers->tree;
    p->options = *options;
    p->options.directories_at_zero = layers->directories_last && layer + 1 < layers->layers_count;
    p->kernel = kernel;
    p->members = layers->members + layers->starts[layer];
    p->members_count = layers->starts[layer + 1] - layers->starts[layer];
    drop_fingerprints(layers, segment_size);
    if (cut(p, segment_size)) {
        plan_free(p);
        return NULL;
    }
    return p;
}

void plan_free(plan *p)
{
    free(p->segments);
    free(p);
}

int plan_digest(plan *p, const size_t *indexes, size_t count, problem *out)
{
    entry **files = malloc((count + 1) * sizeof *files);
    if (!files)
        return problem_no_memory(&p->tree->root, out);
    for (size_t i = 0; i < count; i++)
        files[i] = p->members[p->segments[indexes[i]].first];
    int status = digest_files(p->tree, p->kernel, files, count, &p->cancelled, out);
    free(files);
    return status;
}

/* Files whose content is in place and whose headers wait for its digest. */
typedef struct pending {
    sha256_job jobs[PENDING_FILES];
    entry *members[PENDING_FILES];
    uint8_t *headers[PENDING_FILES];
    uint8_t digests[PENDING_FILES][SHA256_DIGEST];
    size_t count, bytes;
} pending;

static int longer_first(const void *left, const void *right)
{
    const sha256_job *a = left, *b = right;
    return (a->size < b->size) - (a->size > b->size);
}

static int settle(const plan *p, header_maker *maker, pending *w, problem *out)
{
    qsort(w->jobs, w->count, sizeof *w->jobs, longer_first); /* so that both lanes end together */
    sha256_many(p->kernel, w->jobs, w->count);
    for (size_t i = 0; i < w->count; i++) {
        entry *e = w->members[i];
        if (!(e->flags & ENTRY_DIGEST_KNOWN)) {
            memcpy(e->digest, w->digests[i], sizeof e->digest);
            e->flags |= ENTRY_DIGEST_KNOWN;
        } else if (memcmp(e->digest, w->digests[i], sizeof e->digest)) {
            return problem_fill(PROBLEM_CHANGED, 0, e, "read", out);
        }
        if (header_write(maker, e, w->headers[i]))
            return problem_no_memory(e, out);
    }
    w->count = w->bytes = 0;
    return 0;
}

/* Has it been hashed before, and left a fingerprint then? */
static int was_hashed(const entry *e)
{
    return e->flags & ENTRY_DIGEST_KNOWN && e->fingerprints && e->size;
}

static int fill_batch(plan *p, const segment *s, uint8_t *into, problem *out)
{
    uint8_t *at = into;
    pending waiting;
    waiting.count = waiting.bytes = 0;
    reader r;
    reader_begin(&r, p->tree);
    header_maker maker = {.options = &p->options};
    int status = 0;
    for (size_t i = s->first; !status && i < s->first + s->count; i++) {
        entry *e = p->members[i];
        uint8_t *headers = at;
        uint64_t headers_size = header_size(&maker, e);
        if (!headers_size) {
            status = problem_no_memory(e, out);
            break;
        }
        at += headers_size;
        int is_file = S_ISREG(e->mode) && !e->link && !(e->flags & ENTRY_WHITEOUT);
        if (is_file && (status = content_read_whole(&r, e, at, out)))
            break;
        int compared = is_file && was_hashed(e);
        if (compared && !tree_same_content(p->tree, e, at)) {
            status = problem_fill(PROBLEM_CHANGED, 0, e, "read", out);
            break;
        }
        if (is_file && !compared && !(e->flags & ENTRY_BELIEVED)) {
            waiting.jobs[waiting.count] = (sha256_job){
                .data = at, .size = (size_t)e->size, .digest = waiting.digests[waiting.count]};
            waiting.members[waiting.count] = e;
            waiting.headers[waiting.count++] = headers;
            waiting.bytes += (size_t)e->size;
        } else if (header_write(&maker, e, headers)) {
            status = problem_no_memory(e, out);
        }
        if (entry_has_content(e)) {
            memset(at + e->size, 0, (size_t)(tar_padded(e->size) - e->size));
            at += tar_padded(e->size);
        }
        if (!status && (waiting.count == PENDING_FILES || waiting.bytes >= PENDING_BYTES))
            status = settle(p, &maker, &waiting, out);
    }
    if (!status)
        status = settle(p, &maker, &waiting, out);
    reader_end(&r);
    header_maker_end(&maker);
    assert(status || at == into + s->size); /* a batch fills its segment */
    return status;
}

static int fill_header(const plan *p, const entry *e, uint8_t *into, problem *out)
{
    header_maker maker = {.options = &p->options};
    int status = header_write(&maker, e, into) ? problem_no_memory(e, out) : 0;
    header_maker_end(&maker);
    return status;
}

static int fill_slice(plan *p, const segment *s, uint8_t *into, problem *out)
{
    const entry *e = p->members[s->first];
    uint64_t left = e->size - s->offset;
    size_t size = (size_t)(left < s->size ? left : s->size);
    assert(s->offset < e->size && s->size - size < TAR_BLOCK);
    reader r;
    reader_begin(&r, p->tree);
    int fd = reader_open(&r, e, out);
    int status = fd < 0 ? -1 : content_read(fd, e, s->offset, into, size, out);
    if (!status)
        status = content_unchanged(fd, e, out);
    if (!status && !(e->flags & ENTRY_BELIEVED) &&
        !tree_same_slice(p->tree, e, s->offset, fingerprint_add(&p->tree->key, 0, into, size))) {
        status = problem_fill(PROBLEM_CHANGED, 0, e, "read", out);
    }
    memset(into + size, 0, (size_t)(s->size - size));
    if (fd >= 0)
        close(fd);
    reader_end(&r);
    return status;
}

int plan_fill(plan *p, size_t index, uint8_t *into, problem *out)
{
    const segment *s = &p->segments[index];
    if (atomic_load_explicit(&p->cancelled, memory_order_relaxed)) {
        return problem_fill(PROBLEM_CANCELLED, 0, &p->tree->root, NULL, out);
    }
    switch (s->kind) {
    case SEGMENT_BATCH: return fill_batch(p, s, into, out);
    case SEGMENT_SLICE: return fill_slice(p, s, into, out);
    case SEGMENT_HEADER: return fill_header(p, p->members[s->first], into, out);
    default: memset(into, 0, (size_t)s->size); return 0;
    }
}
