#include "recipe.h"

#include "grow.h"

#include <stdlib.h>
#include <string.h>

/* The headers of one entry. The memory is used again for the next one. At the start all is zero but
 * for the maker's options. */
typedef struct headers {
    header_maker maker;
    uint8_t *bytes;
    size_t capacity;
} headers;

/* Their size; 0 without memory. */
static size_t make_headers(headers *h, const entry *e)
{
    uint64_t size = header_size(&h->maker, e);
    if (!size || size > SIZE_MAX / 2)
        return 0;
    if (GROW(&h->bytes, &h->capacity, (size_t)size))
        return 0;
    return header_write(&h->maker, e, h->bytes) ? 0 : (size_t)size;
}

static void headers_end(headers *h)
{
    header_maker_end(&h->maker);
    free(h->bytes);
}

static int is_known(const entry *e)
{
    return !S_ISREG(e->mode) || e->link || e->flags & (ENTRY_DIGEST_KNOWN | ENTRY_WHITEOUT);
}

int recipe_of_plan(const plan *p, uint8_t out[SHA256_DIGEST])
{
    for (size_t i = 0; i < p->members_count; i++)
        if (!is_known(p->members[i]))
            return 1;
    headers h = {.maker.options = &p->options};
    sha256_context context;
    sha256_init(&context);
    int status = 0;
    for (size_t i = 0; !status && i < p->members_count; i++) {
        size_t size = make_headers(&h, p->members[i]);
        if (size)
            sha256_update(p->kernel, &context, h.bytes, size);
        else
            status = -1;
    }
    sha256_final(p->kernel, &context, out);
    headers_end(&h);
    return status;
}

/* E as if it were the only name of its inode. */
static entry as_file(const entry *e)
{
    entry file = *e;
    if (S_ISREG(e->mode) && e->link) {
        memcpy(file.digest, e->link->digest, sizeof file.digest);
        file.flags =
            (uint16_t)((file.flags & ~ENTRY_DIGEST_KNOWN) | (e->link->flags & ENTRY_DIGEST_KNOWN));
    }
    if (S_ISREG(e->mode))
        file.link = NULL;
    return file;
}

int recipe_of_components(tree *t, const sha256_kernel *kernel, const uint32_t *owners,
                         size_t entries, size_t count, uint8_t (*out)[SHA256_DIGEST],
                         uint8_t *known)
{
    const header_options options = {.has_epoch = 1};
    size_t total, walked = 0;
    headers h = {.maker.options = &options};
    entry **order = tree_order(t, &total);
    sha256_context *contexts = malloc((count + 1) * sizeof *contexts);
    int status = order && contexts ? 0 : -1;
    for (size_t i = 0; !status && i < count; i++) {
        sha256_init(&contexts[i]);
        known[i] = 1;
    }
    for (size_t i = 0; !status && i < total; i++) {
        if (order[i]->flags & ENTRY_WHITEOUT)
            continue;
        if (walked == entries) {
            status = 1;
            break;
        }
        uint32_t owner = owners[walked++];
        if (owner >= count || S_ISDIR(order[i]->mode))
            continue;
        entry file = as_file(order[i]);
        if (!is_known(&file)) {
            known[owner] = 0;
            continue;
        }
        size_t size = make_headers(&h, &file);
        if (size)
            sha256_update(kernel, &contexts[owner], h.bytes, size);
        else
            status = -1;
    }
    if (!status && walked != entries)
        status = 1;
    for (size_t i = 0; !status && i < count; i++)
        sha256_final(kernel, &contexts[i], out[i]);
    free(order);
    free(contexts);
    headers_end(&h);
    return status;
}
