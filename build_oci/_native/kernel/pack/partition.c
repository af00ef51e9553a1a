#include "partition.h"

#include "inodes.h"

#include <assert.h>
#include <stdlib.h>

typedef struct builder {
    partition *out;
    entry **emitted; /* in tar order */
    /* of each emitted entry; counts only where it is no directory, or one that leads to nothing */
    uint32_t *layers;
    size_t count;
    size_t *next; /* of each layer: see partition.h */
    /* of each layer: where in `members` its next member goes; a mere count in the first pass */
    size_t *ends;
    entry **members; /* NULL in the first pass */
} builder;

/* The emitted entries and their owners. -1 with PROBLEM set, or left NULL without memory. */
static int gather(builder *b, const uint32_t *owners, size_t count, size_t layers,
                  const char **problem)
{
    size_t total, walked = 0;
    b->emitted = tree_order(b->out->tree, &total);
    if (!b->emitted || !(b->layers = malloc(total * sizeof *b->layers)))
        return -1;
    for (size_t i = 0; i < total; i++) {
        entry *e = b->emitted[i];
        uint32_t owner = OWNER_NOBODY;
        if (!(e->flags & ENTRY_WHITEOUT)) {
            owner = !owners ? 0 : walked < count ? owners[walked] : OWNER_NOBODY;
            walked++;
            if (owner >= layers && owner != OWNER_NOBODY) {
                *problem = "an owner is the number of no layer";
                return -1;
            }
        }
        if (e->flags & ENTRY_UNCHANGED)
            continue;
        if (!(e->flags & ENTRY_WHITEOUT))
            e->number = b->count;
        b->emitted[b->count] = e;
        b->layers[b->count++] = owner;
    }
    if (owners && walked != count) {
        *problem = "there are not as many owners as entries";
        return -1;
    }
    return 0;
}

/* Later names of an inode become links to the first that is emitted, and lie in its layer. */
static int find_links(builder *b, int preserve)
{
    inode_table inodes = {0};
    if (preserve && inodes_begin(&inodes, b->emitted, b->count))
        return -1;
    for (size_t i = 0; i < b->count; i++) {
        entry *e = b->emitted[i];
        if (!S_ISREG(e->mode))
            continue;
        e->link = inodes_first(&inodes, e);
        if (e->link)
            b->layers[i] = b->layers[e->link->number];
    }
    inodes_end(&inodes);
    return 0;
}

/* Is the emitted entry I a directory below which nothing is emitted? */
static int is_bare(const builder *b, size_t i)
{
    return S_ISDIR(b->emitted[i]->mode) &&
           (i + 1 == b->count || b->emitted[i + 1]->parent != b->emitted[i]);
}

/* Does the emitted entry I lie in the layer of its owner, and not merely where it leads to
 * something? */
static int is_placed(const builder *b, size_t i)
{
    return !S_ISDIR(b->emitted[i]->mode) || (!b->out->directories_last && is_bare(b, i));
}

/* What nobody owns goes to the first layer that holds anything. */
static void place_rest(builder *b)
{
    uint32_t first = OWNER_NOBODY;
    for (size_t i = 0; i < b->count; i++)
        if (is_placed(b, i) && b->layers[i] < first)
            first = b->layers[i];
    for (size_t i = 0; i < b->count; i++)
        if (b->layers[i] == OWNER_NOBODY)
            b->layers[i] = first == OWNER_NOBODY ? 0 : first;
}

/* Adds E to LAYER, behind those directories that lead to it and are not there yet. */
static void take(builder *b, size_t layer, entry *e)
{
    size_t missing = 0;
    for (const entry *a = e->parent; a && a->number >= b->next[layer]; a = a->parent)
        missing++;
    if (missing)
        b->next[layer] = e->parent->number + 1;
    size_t at = b->ends[layer] + missing;
    b->ends[layer] = at + 1;
    if (!b->members)
        return;
    b->members[at] = e;
    for (entry *a = e->parent; missing; missing--, a = a->parent) {
        assert(!(a->flags & ENTRY_UNCHANGED));
        b->members[--at] = a;
    }
}

static void pass(builder *b)
{
    for (size_t i = 0; i < b->out->layers_count; i++)
        b->next[i] = 0;
    for (size_t i = 0; i < b->count; i++)
        if (is_placed(b, i))
            take(b, b->layers[i], b->emitted[i]);
    if (!b->out->directories_last)
        return;
    size_t last = b->out->layers_count - 1;
    for (size_t i = 0; i < b->count; i++)
        if (S_ISDIR(b->emitted[i]->mode)) {
            if (b->members)
                b->members[b->ends[last]] = b->emitted[i];
            b->ends[last]++;
        }
}

/* Counts the members of each layer, then puts them down. */
static int lay_out(builder *b)
{
    partition *p = b->out;
    b->next = malloc(p->layers_count * sizeof *b->next);
    b->ends = calloc(p->layers_count, sizeof *b->ends);
    p->starts = calloc(p->layers_count + 1, sizeof *p->starts);
    if (!b->next || !b->ends || !p->starts)
        return -1;
    pass(b);
    for (size_t i = 0; i < p->layers_count; i++) {
        p->starts[i + 1] = p->starts[i] + b->ends[i];
        b->ends[i] = p->starts[i];
    }
    p->members = malloc(p->starts[p->layers_count] * sizeof *p->members);
    if (!p->members)
        return -1;
    b->members = p->members;
    pass(b);
    for (size_t i = 0; i < p->layers_count; i++)
        assert(b->ends[i] == p->starts[i + 1]); /* both passes count alike */
    return 0;
}

partition *partition_new(tree *t, const uint32_t *owners, size_t count, size_t layers,
                         int directories_last, int preserve_links, const char **problem)
{
    *problem = NULL;
    builder b = {.out = calloc(1, sizeof *b.out)};
    if (!b.out)
        return NULL;
    *b.out = (partition){.tree = t,
                         .layers_count = layers + (size_t)!!directories_last,
                         .directories_last = !!directories_last};
    int failed = gather(&b, owners, count, layers, problem) || find_links(&b, preserve_links);
    if (!failed) {
        place_rest(&b);
        failed = lay_out(&b);
    }
    free(b.emitted);
    free(b.layers);
    free(b.next);
    free(b.ends);
    if (failed) {
        partition_free(b.out);
        return NULL;
    }
    return b.out;
}

void partition_free(partition *p)
{
    free(p->members);
    free(p->starts);
    free(p);
}
