#include "compare_state.h"

#include "grow.h"
#include "name_hash.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char WHITEOUT[] = ".wh.";
static const char OPAQUE[] = ".wh..wh..opq";

enum {
    WHITEOUT_SIZE = sizeof WHITEOUT - 1,
    MOST_LINKS = 8, /* hard links that lead to hard links */
};

compare *compare_new(size_t memory_limit, int old_complete, int new_complete)
{
    compare *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->memory_limit = memory_limit;
    c->complete[COMPARE_OLD] = old_complete;
    c->complete[COMPARE_NEW] = new_complete;
    c->mask = 1023;
    c->slots = calloc(c->mask + 1, sizeof *c->slots);
    if (!c->slots) {
        free(c);
        return NULL;
    }
    c->root.name = "";
    return c;
}

void compare_free(compare *c)
{
    arena_release(&c->arena);
    for (int side = 0; side < COMPARE_SIDES; side++)
        free(c->layers[side]);
    free(c->name.at);
    free(c->weights);
    free(c->slots);
    free(c);
}

/* ---- names */

static compare_node *find(const compare *c, const compare_node *parent, const char *name,
                          size_t size, uint32_t hash)
{
    for (size_t slot = hash & c->mask; c->slots[slot]; slot = (slot + 1) & c->mask) {
        compare_node *node = c->slots[slot];
        if (node->hash == hash && node->parent == parent && node->name_size == size &&
            !memcmp(node->name, name, size))
            return node;
    }
    return NULL;
}

static int grow(compare *c)
{
    if (c->arena.held + (c->mask + 1) * sizeof *c->slots > c->memory_limit)
        return -1;
    if (2 * (c->used + 1) <= c->mask)
        return 0;
    size_t mask = 2 * c->mask + 1;
    compare_node **slots = calloc(mask + 1, sizeof *slots);
    if (!slots)
        return -1;
    for (size_t i = 0; i <= c->mask; i++) {
        if (!c->slots[i])
            continue;
        size_t slot = c->slots[i]->hash & mask;
        while (slots[slot])
            slot = (slot + 1) & mask;
        slots[slot] = c->slots[i];
    }
    free(c->slots);
    c->slots = slots;
    c->mask = mask;
    return 0;
}

/* The child NAME of PARENT, made if it is missing; with COPY, NAME need not stay. NULL without
 * memory. */
static compare_node *child_of(compare *c, compare_node *parent, const char *name, size_t size,
                              int copy)
{
    uint32_t hash = name_hash(parent, name, size);
    compare_node *node = find(c, parent, name, size, hash);
    if (node)
        return node;
    if (grow(c) || !(node = arena_take(&c->arena, sizeof *node)) ||
        (copy && !(name = arena_copy(&c->arena, name, size))))
        return NULL;
    *node = (compare_node){.parent = parent,
                           .next = parent->child,
                           .name = name,
                           .name_size = (uint32_t)size,
                           .hash = hash};
    parent->child = node;
    size_t slot = hash & c->mask;
    while (c->slots[slot])
        slot = (slot + 1) & c->mask;
    c->slots[slot] = node;
    c->used++;
    return node;
}

/* The name PATH, whose components are separated by single slashes. With MAKE, what is missing is
 * made. NULL without it, or memory. */
static compare_node *look_up(compare *c, const char *path, size_t size, int make)
{
    compare_node *node = &c->root;
    const char *end = path + size;
    while (node && path < end) {
        const char *slash = memchr(path, '/', (size_t)(end - path));
        size_t length = slash ? (size_t)(slash - path) : (size_t)(end - path);
        node = make ? child_of(c, node, path, length, 1)
                    : find(c, node, path, length, name_hash(node, path, length));
        path += length + 1;
    }
    return node;
}

size_t compare_path(const compare_node *node, char *out)
{
    size_t size = 0;
    for (const compare_node *at = node; at->parent; at = at->parent)
        size += at->name_size + (at->parent->parent != NULL);
    if (out) {
        char *end = out + size;
        for (const compare_node *at = node; at->parent; at = at->parent) {
            end -= at->name_size;
            memcpy(end, at->name, at->name_size);
            if (at->parent->parent)
                *--end = '/';
        }
    }
    return size;
}

/* ---- layers */

int compare_begin_layer(compare *c, int side, uint32_t layer)
{
    size_t count = c->layers_count[side], after = (size_t)layer + 1;
    if (GROW(&c->layers[side], &c->layers_capacity[side], after))
        return -1;
    memset(c->layers[side] + count, 0, (after - count) * sizeof *c->layers[side]);
    c->layers_count[side] = after;
    c->side = side;
    c->layer = layer;
    c->directory = NULL;
    return 0;
}

static void imply(compare_node *directory, int side, uint32_t floor)
{
    for (; directory && directory->implied[side] < floor; directory = directory->parent)
        directory->implied[side] = floor;
}

static int add_member(compare *c, const member *m)
{
    uint32_t floor = c->layer + 1;
    size_t size, directory_size;
    const char *name = member_base_name(m, &size, &directory_size);
    int same = c->directory && c->directory_size == directory_size &&
               passing_name_goes_on(&c->name, m, directory_size);
    if (passing_name_next(&c->name, m) ||
        (!same && !(c->directory = look_up(c, c->name.at, directory_size, 1))))
        return -1;
    c->directory_size = directory_size;
    compare_node *node = size ? child_of(c, c->directory, name, size, 0) : &c->root;
    if (!node)
        return -1;
    if (size >= WHITEOUT_SIZE && !memcmp(name, WHITEOUT, WHITEOUT_SIZE)) {
        node->is_whiteout = 1;
        if (size == sizeof OPAQUE - 1 && !memcmp(name, OPAQUE, size)) {
            c->directory->opaque[c->side] = floor;
        } else if (size > WHITEOUT_SIZE) {
            compare_node *hidden =
                child_of(c, c->directory, name + WHITEOUT_SIZE, size - WHITEOUT_SIZE, 0);
            if (!hidden)
                return -1;
            hidden->hidden[c->side] = floor;
        }
    }
    if (size)
        imply(c->directory, c->side, floor);
    occurrence *there = node->top[c->side];
    if (there && there->layer == c->layer) {
        there->m = m; /* twice in one archive: the last one counts */
        return 0;
    }
    assert(!there || there->layer < c->layer); /* layers come from the lowest to the topmost */
    occurrence *o = arena_take(&c->arena, sizeof *o);
    if (!o)
        return -1;
    *o = (occurrence){.m = m, .node = node, .below = there, .layer = c->layer};
    node->top[c->side] = o;
    layer_list *list = &c->layers[c->side][c->layer];
    if (list->last)
        list->last->next = o;
    else
        list->first = o;
    list->last = o;
    list->count++;
    return 0;
}

int compare_add(compare *c, const member *members, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (add_member(c, &members[i]))
            return -1;
    return 0;
}

/* ---- two members of one name */

/* The file that O is a name of; NULL where it lies in a layer that has not been read. */
static const member *file_of(compare *c, int side, const occurrence *o)
{
    for (int links = 0; o && o->m->flags & MEMBER_HARD_LINK && links < MOST_LINKS; links++) {
        const compare_node *node = look_up(c, o->m->target, o->m->target_size, 0);
        uint32_t layer = o->layer;
        o = node ? node->top[side] : NULL;
        for (int i = 0; o && o->layer > layer && i < MOST_CHAIN; i++)
            o = o->below;
    }
    return o && !(o->m->flags & MEMBER_HARD_LINK) ? o->m : NULL;
}

uint16_t compare_members(compare *c, const occurrence *old, const occurrence *new)
{
    const member *a = old->m, *b = new->m;
    uint32_t link = (a->flags ^ b->flags) & MEMBER_HARD_LINK;
    if (a->flags & b->flags & MEMBER_HARD_LINK)
        link = a->target_size != b->target_size || memcmp(a->target, b->target, a->target_size);
    uint16_t bits = link ? DIFFERS_LINK : 0;
    const member *file_a = file_of(c, COMPARE_OLD, old), *file_b = file_of(c, COMPARE_NEW, new);
    int known = file_a && file_b;
    if (known) {
        a = file_a;
        b = file_b;
    }
    if ((a->mode ^ b->mode) & S_IFMT)
        return bits | DIFFERS_TYPE;
    switch (known ? a->mode & S_IFMT : 0) {
    case S_IFREG:
        if (a->size != b->size || (a->size && memcmp(a->digest, b->digest, sizeof a->digest)))
            bits |= DIFFERS_CONTENT;
        break;
    case S_IFLNK:
        if (a->target_size != b->target_size || memcmp(a->target, b->target, a->target_size))
            bits |= DIFFERS_TARGET;
        break;
    case S_IFCHR:
    case S_IFBLK:
        if (a->rdev != b->rdev)
            bits |= DIFFERS_DEVICE;
        break;
    }
    if (!S_ISLNK(a->mode) && (a->mode ^ b->mode) & 07777)
        bits |= DIFFERS_MODE;
    if (a->uid != b->uid || a->gid != b->gid)
        bits |= DIFFERS_OWNER;
    if (a->mtime != b->mtime || a->mtime_ns != b->mtime_ns)
        bits |= DIFFERS_TIME;
    if (a->xattrs_size != b->xattrs_size ||
        (a->xattrs_size && memcmp(a->xattrs, b->xattrs, a->xattrs_size)))
        bits |= DIFFERS_XATTRS;
    return bits;
}

/* ---- the walk over all names */

/* What one image has at a name. */
typedef enum state { NOTHING, IMPLIED /* a directory without a member */, PRESENT } state;

/* Passes NODE: sets its floors from its parent's. */
static state state_of(compare_node *node, int side)
{
    uint32_t floor = node->parent ? node->parent->floor[side] : 0;
    if (node->hidden[side] > floor)
        floor = node->hidden[side];
    const occurrence *top = node->top[side];
    if (top && top->layer + 1 < floor)
        top = NULL;
    state found = top                                                   ? PRESENT
                  : node->implied[side] && node->implied[side] >= floor ? IMPLIED
                                                                        : NOTHING;
    /* What is no directory hides what the layers below have under this name. */
    for (const occurrence *o = top; o; o = o->below)
        if (!S_ISDIR(o->m->mode)) {
            if (o->layer + 1 > floor)
                floor = o->layer + 1;
            break;
        }
    node->floor[side] = node->opaque[side] > floor ? node->opaque[side] : floor;
    return found;
}

/* Fills OUT with what became of NODE; 0 where there is nothing to say. */
static int judge(compare *c, compare_node *node, difference *out)
{
    state old = state_of(node, COMPARE_OLD), new = state_of(node, COMPARE_NEW);
    *out = (difference){.node = node,
                        .old = old == PRESENT ? node->top[COMPARE_OLD] : NULL,
                        .new = new == PRESENT ? node->top[COMPARE_NEW] : NULL};
    if (node->is_whiteout)
        return 0;
    if (old == PRESENT && new == PRESENT) {
        out->bits = compare_members(c, out->old, out->new);
        out->what = out->bits ? NAME_CHANGED : NAME_SAME;
    } else if (old == PRESENT) {
        if (new == IMPLIED && compare_is_directory(out->old))
            return 0;
        out->bits = new == IMPLIED ? DIFFERS_TYPE : 0;
        out->what = new == IMPLIED ? NAME_CHANGED : NAME_REMOVED;
    } else if (new == PRESENT) {
        if (old == IMPLIED && compare_is_directory(out->new))
            out->what = NAME_SAME;
        else {
            out->bits = old == IMPLIED ? DIFFERS_TYPE : 0;
            out->what = old == IMPLIED ? NAME_CHANGED : NAME_ADDED;
        }
    } else if (old == NOTHING && new == NOTHING) {
        /* Only one of them hides what a layer has that was not read. */
        int hides_old = node->hidden[COMPARE_OLD] && !c->complete[COMPARE_OLD],
            hides_new = node->hidden[COMPARE_NEW] && !c->complete[COMPARE_NEW];
        if (hides_old == hides_new)
            return 0;
        out->what = hides_new ? NAME_REMOVED : NAME_ADDED;
    } else {
        return 0;
    }
    return out->what != NAME_SAME || (c->everything && out->new);
}

void compare_start(compare *c, int everything)
{
    c->at = &c->root;
    c->everything = everything;
}

size_t compare_walk(compare *c, difference *out, size_t capacity, int *ended)
{
    size_t count = 0;
    for (int looks = 0; c->at && count < capacity && looks < LOOKS; looks++) {
        compare_node *node = c->at;
        count += (size_t)judge(c, node, &out[count]);
        if (node->child) {
            c->at = node->child;
            continue;
        }
        while (node && !node->next)
            node = node->parent;
        c->at = node ? node->next : NULL;
    }
    *ended = !c->at;
    return count;
}
