#include "archive_check.h"

#include "block.h"

#include "grow.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* What the next bytes have to be. A state that would take no byte is left out; DONE takes none. */
typedef enum state { HEADERS, CONTENT, ZEROS, DONE } state;

struct archive_check {
    const plan *plan;
    header_maker maker;
    state state;
    int differs;
    size_t member;    /* the one at hand; members_count: the end of the archive */
    uint64_t left;    /* of the headers, the content or the zeros */
    uint64_t offset;  /* in the content */
    uint8_t *headers; /* of the member at hand, as they have to be */
    size_t headers_size, headers_capacity;
    /* Of the slice at hand, and what of it does not fill a block yet. */
    uint64_t fingerprint;
    uint8_t block[FINGERPRINT_BLOCK];
    size_t filled;
    sha256_context archive;
};

static size_t least(uint64_t a, size_t b)
{
    return a < b ? (size_t)a : b;
}

/* The headers of the member at hand follow, or the end of the archive. -1 without memory. */
static int begin_member(archive_check *c)
{
    if (c->member == c->plan->members_count) {
        c->state = ZEROS;
        c->left = 2 * TAR_BLOCK;
        return 0;
    }
    const entry *e = c->plan->members[c->member];
    uint64_t size = header_size(&c->maker, e);
    if (!size || size > SIZE_MAX / 2 || GROW(&c->headers, &c->headers_capacity, (size_t)size) ||
        header_write(&c->maker, e, c->headers))
        return -1;
    c->state = HEADERS;
    c->left = c->headers_size = (size_t)size;
    return 0;
}

/* What stood there is complete. -1 without memory. */
static int next_state(archive_check *c)
{
    const entry *e = c->member < c->plan->members_count ? c->plan->members[c->member] : NULL;
    if (!e) {
        c->state = DONE;
        return 0;
    }
    if (c->state == HEADERS && entry_has_content(e)) {
        c->state = CONTENT;
        c->left = e->size;
        c->offset = c->fingerprint = 0;
        return 0;
    }
    if (c->state == CONTENT && tar_padded(e->size) != e->size) {
        c->state = ZEROS;
        c->left = tar_padded(e->size) - e->size;
        return 0;
    }
    c->member++;
    return begin_member(c);
}

static void add_to_fingerprint(archive_check *c, const uint8_t *data, size_t size)
{
    const fingerprint_key *key = &c->plan->tree->key;
    if (c->filled) {
        size_t part = least(size, sizeof c->block - c->filled);
        memcpy(c->block + c->filled, data, part);
        c->filled += part;
        data += part;
        size -= part;
        if (c->filled < sizeof c->block)
            return;
        c->fingerprint = fingerprint_add(key, c->fingerprint, c->block, sizeof c->block);
        c->filled = 0;
    }
    size_t whole = size / sizeof c->block * sizeof c->block;
    c->fingerprint = fingerprint_add(key, c->fingerprint, data, whole);
    c->filled = size - whole;
    memcpy(c->block, data + whole, c->filled);
}

/* Takes in DATA, which lies within one slice. */
static int is_same_content(archive_check *c, const uint8_t *data, size_t size)
{
    const tree *t = c->plan->tree;
    const entry *e = c->plan->members[c->member];
    add_to_fingerprint(c, data, size);
    uint64_t start = c->offset;
    c->offset += size;
    if (c->offset < e->size && c->offset % t->slice_size)
        return 1;
    if (c->filled)
        c->fingerprint = fingerprint_add(&t->key, c->fingerprint, c->block, c->filled);
    int same = tree_same_slice(t, e, start, c->fingerprint);
    c->fingerprint = c->filled = 0;
    return same;
}

/* How many of SIZE bytes the state takes in at once. */
static size_t step_of(const archive_check *c, size_t size)
{
    size_t step = least(c->left, size);
    if (c->state != CONTENT)
        return step;
    uint64_t slice = c->plan->tree->slice_size;
    return least(slice - c->offset % slice, step);
}

static int is_same(archive_check *c, const uint8_t *data, size_t size)
{
    switch (c->state) {
    case HEADERS: return !memcmp(c->headers + (c->headers_size - (size_t)c->left), data, size);
    case CONTENT: return is_same_content(c, data, size);
    case ZEROS: return block_is_zero(data, size);
    default: return 0; /* more than there has to be */
    }
}

static int compare(archive_check *c, const uint8_t *data, size_t size)
{
    while (size && !c->differs) {
        size_t step = c->state == DONE ? size : step_of(c, size);
        assert(step);
        c->differs = !is_same(c, data, step);
        data += step;
        size -= step;
        if (c->differs)
            break;
        c->left -= step;
        if (!c->left && next_state(c))
            return -1;
    }
    return 0;
}

archive_check *archive_check_new(const plan *p)
{
    archive_check *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->plan = p;
    c->maker.options = &p->options;
    sha256_init(&c->archive);
    if (begin_member(c)) {
        archive_check_free(c);
        return NULL;
    }
    return c;
}

int archive_check_possible(const plan *p)
{
    for (size_t i = 0; i < p->members_count; i++) {
        const entry *e = p->members[i];
        int known = e->flags & ENTRY_DIGEST_KNOWN && e->fingerprints &&
                    !(e->flags & (ENTRY_BELIEVED | ENTRY_IN_ARCHIVE));
        if (entry_has_content(e) && !(e->flags & ENTRY_WHITEOUT) && !known)
            return 0;
    }
    return 1;
}

int archive_check_feed(archive_check *c, const uint8_t *data, size_t size, archive_check *other,
                       const uint8_t *other_data, size_t other_size)
{
    if (compare(c, data, size) || (other && compare(other, other_data, other_size)))
        return -1;
    if (other)
        sha256_update_two(c->plan->kernel, &c->archive, data, size, &other->archive, other_data,
                          other_size);
    else
        sha256_update(c->plan->kernel, &c->archive, data, size);
    return 0;
}

int archive_check_holds(const archive_check *c)
{
    return !c->differs;
}

int archive_check_complete(const archive_check *c)
{
    return !c->differs && c->state == DONE;
}

void archive_check_digest(const archive_check *c, uint8_t digest[SHA256_DIGEST])
{
    sha256_final(c->plan->kernel, &c->archive, digest);
}

void archive_check_free(archive_check *c)
{
    if (!c)
        return;
    header_maker_end(&c->maker);
    free(c->headers);
    free(c);
}
