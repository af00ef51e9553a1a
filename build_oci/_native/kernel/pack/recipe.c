#include "recipe.h"

#include "grow.h"

#include <stdlib.h>
#include <string.h>

/* What is hashed and handed on at once: it stays in a core's own cache. */
enum { PIECE = 128 * 1024 };

/* Appends the headers of E. -1 without memory. */
static int append(recipe *r, const entry *e)
{
    uint64_t size = header_size(&r->maker, e);
    if (!size || size > SIZE_MAX / 2)
        return -1;
    if (GROW(&r->bytes, &r->capacity, r->size + (size_t)size) ||
        header_write(&r->maker, e, r->bytes + r->size))
        return -1;
    r->size += (size_t)size;
    return 0;
}

static int is_known(const entry *e)
{
    return !S_ISREG(e->mode) || e->link || e->flags & (ENTRY_DIGEST_KNOWN | ENTRY_WHITEOUT);
}

int recipe_begin(recipe *r, const plan *p)
{
    for (size_t i = 0; i < p->members_count; i++)
        if (!is_known(p->members[i]))
            return 1;
    *r = (recipe){.plan = p, .maker.options = &p->options};
    sha256_init(&r->context);
    return 0;
}

int recipe_next(recipe *r)
{
    for (r->size = 0; r->at < r->plan->members_count && r->size < PIECE; r->at++)
        if (append(r, r->plan->members[r->at]))
            return -1;
    if (r->size)
        sha256_update(r->plan->kernel, &r->context, r->bytes, r->size);
    return 0;
}

void recipe_digest(const recipe *r, uint8_t out[SHA256_DIGEST])
{
    sha256_final(r->plan->kernel, &r->context, out);
}

void recipe_end(recipe *r)
{
    header_maker_end(&r->maker);
    free(r->bytes);
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
    recipe headers = {.maker.options = &options};
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
        headers.size = 0;
        status = append(&headers, &file);
        if (!status)
            sha256_update(kernel, &contexts[owner], headers.bytes, headers.size);
    }
    if (!status && walked != entries)
        status = 1;
    for (size_t i = 0; !status && i < count; i++)
        sha256_final(kernel, &contexts[i], out[i]);
    free(order);
    free(contexts);
    recipe_end(&headers);
    return status;
}
