#include "lower.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char WHITEOUT[] = ".wh.";
static const char OPAQUE[] = ".wh..wh..opq";
enum { WHITEOUT_SIZE = sizeof WHITEOUT - 1 };

/* Stands where a node was removed from the table: look-ups go on behind it. */
static lower_node GONE;

static uint32_t hash_of(const lower_node *parent, const char *name, size_t size)
{
    uint64_t hash = 0xcbf29ce484222325u ^ ((uint64_t)(uintptr_t)parent >> 4) * 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (uint8_t)name[i]) * 0x100000001b3u;
    return (uint32_t)(hash ^ hash >> 32);
}

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
    free(l->slots);
    free(l);
}

lower_node *lower_find(const lower *l, const lower_node *parent, const char *name, size_t size)
{
    uint32_t hash = hash_of(parent, name, size);
    for (size_t slot = hash & l->mask; l->slots[slot]; slot = (slot + 1) & l->mask) {
        lower_node *node = l->slots[slot];
        if (node != &GONE && node->hash == hash && node->parent == parent && node->name_size == size && !memcmp(node->name, name, size))
            return node;
    }
    return NULL;
}

static int grow(lower *l)
{
    if (l->arena.held > l->memory_limit)
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
    return 0;
}

static lower_node *add(lower *l, lower_node *parent, const char *name, size_t size)
{
    if (grow(l))
        return NULL;
    lower_node *node = arena_take(&l->arena, sizeof *node);
    if (!node)
        return NULL;
    *node = (lower_node){.parent = parent, .name = name, .name_size = (uint32_t)size, .hash = hash_of(parent, name, size)};
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

/* Takes one node, without children, out of the table. */
static void drop(lower *l, lower_node *node)
{
    size_t slot = node->hash & l->mask;
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

/* Everything below TOP, deepest first, without recursion: a hostile image chooses the depth. */
static void drop_below(lower *l, lower_node *top)
{
    lower_node *node = top;
    for (;;) {
        while (node->child)
            node = node->child;
        if (node == top)
            return;
        lower_node *above = node->parent;
        drop(l, node);
        node = above;
    }
}

static int is_directory(const lower_node *node)
{
    return !node->inode->member || S_ISDIR(node->inode->member->mode);
}

static lower_inode *new_inode(lower *l, const member *m)
{
    lower_inode *inode = arena_take(&l->arena, sizeof *inode);
    if (inode)
        *inode = (lower_inode){.member = m};
    return inode;
}

static void give(lower_node *node, lower_inode *inode)
{
    if (node->inode)
        node->inode->names--;
    node->inode = inode;
    inode->names++;
}

/* The last component of a normalised name; *DIRECTORY_SIZE is the length of what stands before it, without the slash. */
static const char *base_name(const char *name, size_t size, size_t *directory_size)
{
    const char *slash = size ? memrchr(name, '/', size) : NULL;
    *directory_size = slash ? (size_t)(slash - name) : 0;
    return slash ? slash + 1 : name;
}

static lower_node *look_up(lower *l, const char *path, size_t size)
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

/* The directory PATH, made where it is missing: an archive need not name the directories of its files. NULL without memory. */
static lower_node *directory_at(lower *l, const char *path, size_t size)
{
    lower_node *node = &l->root;
    const char *end = path + size;
    while (path < end) {
        const char *slash = memchr(path, '/', (size_t)(end - path));
        size_t length = slash ? (size_t)(slash - path) : (size_t)(end - path);
        lower_node *below = lower_find(l, node, path, length);
        if (!below && !(below = add(l, node, path, length)))
            return NULL;
        if (!below->inode || !is_directory(below)) {
            lower_inode *inode = new_inode(l, NULL);
            if (!inode)
                return NULL;
            give(below, inode);
        }
        below->layer = l->layers;
        node = below;
        path += length + 1;
    }
    return node;
}

static int fail(lower *l, const char *what, const member *m)
{
    snprintf(l->error, sizeof l->error, "%s: %.200s", what, m ? m->name : "");
    return -1;
}

static int is_whiteout(const char *name, size_t size)
{
    return size >= WHITEOUT_SIZE && !memcmp(name, WHITEOUT, WHITEOUT_SIZE);
}

static void hide(lower *l, const member *m, const char *name, size_t directory_size)
{
    size_t size = m->name_size - (size_t)(name - m->name);
    lower_node *directory = look_up(l, m->name, directory_size);
    if (!directory)
        return; /* hides nothing: allowed, and written by some builders */
    if (size == sizeof OPAQUE - 1 && !memcmp(name, OPAQUE, size)) {
        drop_below(l, directory);
        return;
    }
    lower_node *hidden = lower_find(l, directory, name + WHITEOUT_SIZE, size - WHITEOUT_SIZE);
    if (hidden) {
        drop_below(l, hidden);
        drop(l, hidden);
    }
}

static int place(lower *l, const member *m)
{
    if (!m->name_size) {
        if (S_ISDIR(m->mode))
            l->root_inode.member = m;
        return 0;
    }
    size_t directory_size;
    const char *name = base_name(m->name, m->name_size, &directory_size);
    size_t size = m->name_size - (size_t)(name - m->name);
    if (size > NAME_MAX)
        return fail(l, "a name longer than any file system takes", m);
    lower_inode *inode;
    if (m->flags & MEMBER_HARD_LINK) {
        lower_node *target = look_up(l, m->target, m->target_size);
        if (!target || is_directory(target))
            return fail(l, "a hard link to a file that is not in the image", m);
        inode = target->inode;
    } else if (!(inode = new_inode(l, m))) {
        return fail(l, "more names than there is memory for", m);
    }
    lower_node *directory = directory_at(l, m->name, directory_size);
    if (!directory)
        return fail(l, "more names than there is memory for", m);
    lower_node *node = lower_find(l, directory, name, size);
    if (node && !S_ISDIR(m->mode))
        drop_below(l, node);
    if (!node && !(node = add(l, directory, name, size)))
        return fail(l, "more names than there is memory for", m);
    give(node, inode);
    node->layer = l->layers;
    return 0;
}

int lower_apply(lower *l, const member *members, size_t count)
{
    l->layers++;
    /* All whiteouts first: they speak of the layers below, wherever they stand. Opaque ones and others remove without regard to each other. */
    for (size_t i = 0; i < count; i++) {
        size_t directory_size;
        const char *name = base_name(members[i].name, members[i].name_size, &directory_size);
        if (is_whiteout(name, members[i].name_size - (size_t)(name - members[i].name)))
            hide(l, &members[i], name, directory_size);
    }
    for (size_t i = 0; i < count; i++) {
        size_t directory_size;
        const char *name = base_name(members[i].name, members[i].name_size, &directory_size);
        if (!is_whiteout(name, members[i].name_size - (size_t)(name - members[i].name)) && place(l, &members[i]))
            return -1;
    }
    return 0;
}
