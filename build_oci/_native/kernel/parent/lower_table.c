#include "lower_table.h"

#include "name_hash.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Stands where a node was removed from the table: look-ups go on behind it. */
static lower_node GONE;

lower *lower_new(size_t memory_limit)
{
    lower *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->memory_limit = memory_limit;
    l->mask = 1023;
    l->slots = calloc(l->mask + 1, sizeof *l->slots);
    if (!l->slots) {
        free(l);
        return NULL;
    }
    l->root.name = "";
    l->root.inode = &l->root_inode;
    l->root_inode.names = 1;
    return l;
}

void lower_free(lower *l)
{
    arena_release(&l->arena);
    free(l->name.at);
    free(l->slots);
    free(l);
}

lower_node *lower_find(const lower *l, const lower_node *parent, const char *name, size_t size)
{
    uint32_t hash = name_hash(parent, name, size);
    for (size_t slot = hash & l->mask; l->slots[slot]; slot = (slot + 1) & l->mask) {
        lower_node *node = l->slots[slot];
        if (node != &GONE && node->hash == hash && node->parent == parent &&
            node->name_size == size && !memcmp(node->name, name, size))
            return node;
    }
    return NULL;
}

size_t lower_held(const lower *l)
{
    return l->arena.held + (l->mask + 1) * sizeof *l->slots;
}

static int grow(lower *l)
{
    if (lower_held(l) > l->memory_limit)
        return -1;
    if (2 * (l->used + l->removed + 1) <= l->mask)
        return 0;
    size_t mask = l->mask;
    while (4 * (l->used + 1) > mask)
        mask = 2 * mask + 1;
    lower_node **slots = calloc(mask + 1, sizeof *slots);
    if (!slots)
        return -1;
    for (size_t i = 0; i <= l->mask; i++) {
        lower_node *node = l->slots[i];
        if (!node || node == &GONE)
            continue;
        size_t slot = node->hash & mask;
        while (slots[slot])
            slot = (slot + 1) & mask;
        slots[slot] = node;
    }
    free(l->slots);
    l->slots = slots;
    l->mask = mask;
    l->removed = 0;
    assert(2 * (l->used + 1) <= mask); /* a probe always comes to a free slot */
    return 0;
}

lower_node *lower_add(lower *l, lower_node *parent, const char *name, size_t size)
{
    if (grow(l))
        return NULL;
    lower_node *node = arena_take(&l->arena, sizeof *node);
    if (!node)
        return NULL;
    assert(size && size <= NAME_MAX && !memchr(name, '/', size));
    assert(!lower_find(l, parent, name, size));
    *node = (lower_node){.parent = parent,
                         .name = name,
                         .name_size = (uint16_t)size,
                         .hash = name_hash(parent, name, size),
                         .placed = l->sequence};
    node->next = parent->child;
    if (parent->child)
        parent->child->previous = node;
    parent->child = node;
    size_t slot = node->hash & l->mask;
    while (l->slots[slot] && l->slots[slot] != &GONE)
        slot = (slot + 1) & l->mask;
    l->removed -= l->slots[slot] == &GONE;
    l->slots[slot] = node;
    l->used++;
    return node;
}

void lower_drop(lower *l, lower_node *node)
{
    size_t slot = node->hash & l->mask;
    assert(!node->child && node->inode && node->inode->names);
    while (l->slots[slot] != node)
        slot = (slot + 1) & l->mask;
    l->slots[slot] = &GONE;
    l->removed++;
    l->used--;
    if (node->previous)
        node->previous->next = node->next;
    else
        node->parent->child = node->next;
    if (node->next)
        node->next->previous = node->previous;
    node->inode->names--;
}

/* Deepest first, without recursion: a hostile image chooses the depth. */
void lower_drop_below(lower *l, lower_node *top)
{
    lower_node *node = top;
    for (;;) {
        while (node->child)
            node = node->child;
        if (node == top)
            return;
        lower_node *above = node->parent;
        lower_drop(l, node);
        node = above;
    }
}

lower_node *lower_look_up(lower *l, const char *path, size_t size)
{
    lower_node *node = &l->root;
    const char *end = path + size;
    while (node && path < end) {
        const char *slash = memchr(path, '/', (size_t)(end - path));
        size_t length = slash ? (size_t)(slash - path) : (size_t)(end - path);
        node = lower_find(l, node, path, length);
        path += length + 1;
    }
    return node;
}
