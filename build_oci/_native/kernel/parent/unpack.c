#include "unpack.h"

#include "grow.h"
#include "xattr.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int is_directory(const lower_node *node)
{
    return !node->inode->member || S_ISDIR(node->inode->member->mode);
}

unpack *unpack_new(const lower *l, const unpack_source *sources, size_t count, size_t memory_limit)
{
    unpack *u = calloc(1, sizeof *u);
    int *descriptors = malloc((count + 1) * sizeof *descriptors);
    if (u) {
        u->lower = l;
        u->sources = malloc((count + 1) * sizeof *sources);
        u->tree.sources = descriptors;
        u->tree.root_path = strdup("");
        u->waiting_capacity = 256;
        u->waiting = malloc(u->waiting_capacity * sizeof *u->waiting);
        u->memory_limit = memory_limit;
        u->sources_count = count;
    }
    if (!u || !descriptors || !u->sources || !u->tree.root_path || !u->waiting) {
        if (u)
            unpack_free(u);
        else
            free(descriptors);
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        u->sources[i] = sources[i];
        descriptors[i] = sources[i].fd;
    }
    fingerprint_key_make(&u->tree.key);
    return u;
}

void unpack_free(unpack *u)
{
    arena_release(&u->tree.arena);
    free((void *)(uintptr_t)u->tree.sources);
    free(u->tree.root_path);
    free(u->sources);
    free(u->waiting);
    free(u->sorted);
    free(u);
}

/* Which of the sources M comes from. */
static size_t source_of(const unpack *u, const member *m)
{
    size_t i = 0;
    while (i < u->sources_count &&
           !(m >= u->sources[i].members && m < u->sources[i].members + u->sources[i].count))
        i++;
    return i;
}

static int refuse(unpack *u, const lower_node *node, const char *what)
{
    char path[256]; /* filled from its end; the first names of a long path are left out */
    size_t at = sizeof path - 1;
    path[at] = 0;
    for (const lower_node *n = node; n->parent; n = n->parent) {
        if ((size_t)n->name_size + 5 > at) {
            at -= 4;
            memcpy(path + at, ".../", 4);
            break;
        }
        if (n != node)
            path[--at] = '/';
        at -= n->name_size;
        memcpy(path + at, n->name, n->name_size);
    }
    snprintf(u->error, sizeof u->error, "%s: %s", path + at, what);
    return -1;
}

/* Do all clients have the same there? Of a directory's metadata they need not (see the header). */
static int check(unpack *u, const lower_node *node)
{
    const member *m = node->inode->member;
    if (m && m->flags & MEMBER_AMBIGUOUS)
        return refuse(u, node, "clients do not agree about its extended attributes");
    if (node->flags & NODE_SHADOW || (node->doubted && node->doubted >= node->placed) ||
        node->inode->vague)
        return refuse(u, node, "clients do not agree about what this name is in the image");
    return 0;
}

/* Moves the instructions among the attributes of E to where a walk puts them. */
static int take_instructions(unpack *u, entry *e, const lower_node *node)
{
    size_t count = 0, taken = 0, at = 0;
    xattr item;
    while (xattr_next(e->xattrs, e->xattrs_size, &at, &item)) {
        count++;
        taken += (size_t)xattr_is_instruction(&item);
    }
    if (!taken)
        return 0;
    xattr *items = malloc(count * sizeof *items); /* those that stay, then those taken */
    if (!items)
        return -1;
    size_t kept = 0, end = count - taken;
    at = 0;
    while (xattr_next(e->xattrs, e->xattrs_size, &at, &item))
        items[xattr_is_instruction(&item) ? end++ : kept++] = item;
    int status =
        xattr_pack(&u->tree.arena, items, kept, &e->xattrs, &e->xattrs_size) ||
        xattr_pack(&u->tree.arena, items + kept, taken, &e->instructions, &e->instructions_size);
    free(items);
    if (status)
        return -1;
    /* Of a file with many names each name has a copy. */
    return u->tree.arena.held > u->memory_limit
               ? refuse(u, node, "more attributes than there is memory for")
               : 0;
}

static int describe(unpack *u, entry *e, const lower_node *node)
{
    const member *m = node->inode->member;
    e->mode = m ? m->mode : S_IFDIR | 0755;
    e->nlink = 1;
    if (m) {
        e->uid = m->uid;
        e->gid = m->gid;
        e->mtime = m->mtime;
        e->mtime_ns = m->mtime_ns;
        e->xattrs = m->xattrs;
        e->xattrs_size = m->xattrs_size;
        if (u->take_instructions && take_instructions(u, e, node))
            return -1;
    }
    if (u->has_owner) {
        e->uid = u->uid;
        e->gid = u->gid;
    }
    if (!m)
        return 0;
    switch (m->mode & S_IFMT) {
    case S_IFREG: {
        size_t source = source_of(u, m);
        if (source == u->sources_count || !(m->flags & MEMBER_DIGEST_KNOWN))
            return refuse(u, node, "its content is in none of the archives");
        e->flags = ENTRY_IN_ARCHIVE | ENTRY_DIGEST_KNOWN |
                   (u->sources[source].is_ours ? ENTRY_BELIEVED : 0);
        e->dev = source;
        e->ino = u->sources[source].start + m->offset;
        e->size = m->size;
        e->nlink = node->inode->names;
        memcpy(e->digest, m->digest, sizeof e->digest);
        break;
    }
    case S_IFLNK:
        if (m->target_size > UINT16_MAX)
            return refuse(u, node, "its target is too long");
        e->target = m->target;
        e->target_size = (uint16_t)m->target_size;
        break;
    case S_IFCHR:
    case S_IFBLK: e->rdev = m->rdev; break;
    default: break;
    }
    return 0;
}

/* The order of a directory's block: what is no directory first, each by the bytes of its name. */
static int in_order(const void *left, const void *right)
{
    const lower_node *a = *(const lower_node *const *)left, *b = *(const lower_node *const *)right;
    int differ = is_directory(a) - is_directory(b);
    if (differ)
        return differ;
    int order = memcmp(a->name, b->name, a->name_size < b->name_size ? a->name_size : b->name_size);
    return order ? order : (a->name_size > b->name_size) - (a->name_size < b->name_size);
}

static int wait_for(unpack *u, entry *directory)
{
    if (GROW(&u->waiting, &u->waiting_capacity, u->waiting_count + 1))
        return -1;
    u->waiting[u->waiting_count++] = directory;
    return 0;
}

/* The children of NODE into `sorted`; how many. -1 without memory. */
static ptrdiff_t sort_children(unpack *u, const lower_node *node)
{
    size_t count = 0;
    for (const lower_node *child = node->child; child; child = child->next) {
        if (GROW(&u->sorted, &u->sorted_capacity, count + 1))
            return -1;
        u->sorted[count++] = child;
    }
    if (count) /* where there has never been one, the array is NULL */
        qsort(u->sorted, count, sizeof *u->sorted, in_order);
    return (ptrdiff_t)count;
}

static int fill(unpack *u, entry *directory)
{
    const lower_node *node = directory->lower;
    directory->lower = NULL; /* the table goes before the tree */
    ptrdiff_t count = sort_children(u, node);
    if (count <= 0)
        return (int)count;
    if ((size_t)count > UINT32_MAX ||
        u->tree.arena.held + (size_t)count * sizeof(entry) > u->memory_limit)
        return refuse(u, node, "more entries than there is memory for");
    entry *block = arena_take(&u->tree.arena, (size_t)count * sizeof *block);
    if (!block)
        return -1;
    memset(block, 0, (size_t)count * sizeof *block);
    directory->children = block;
    directory->children_count = (uint32_t)count;
    for (ptrdiff_t i = 0; i < count; i++) {
        const lower_node *child = u->sorted[i];
        entry *e = block + i;
        e->parent = directory;
        e->name = arena_copy(&u->tree.arena, child->name, child->name_size);
        e->name_size = (uint16_t)child->name_size;
        if (!e->name || check(u, child) || describe(u, e, child))
            return -1;
        if (!is_directory(child)) {
            directory->files_count++;
            continue;
        }
        e->lower = child;
        if (wait_for(u, e))
            return -1;
    }
    u->entries += (size_t)count;
    return 0;
}

int unpack_more(unpack *u, size_t limit)
{
    size_t enough = u->entries + limit;
    if (!u->entries) {
        entry *root = &u->tree.root;
        root->name = "";
        u->entries = 1;
        if (check(u, &u->lower->root) || describe(u, root, &u->lower->root))
            return -1;
        root->lower = &u->lower->root;
        if (wait_for(u, root))
            return -1;
    }
    while (u->waiting_count && u->entries < enough)
        if (fill(u, u->waiting[--u->waiting_count]))
            return -1;
    return u->waiting_count > 0;
}

const entry *unpack_find(const unpack *u, const char *path, size_t size)
{
    const entry *e = &u->tree.root;
    for (const char *end = path + size; e && path < end;) {
        const char *slash = memchr(path, '/', (size_t)(end - path));
        size_t length = slash ? (size_t)(slash - path) : (size_t)(end - path);
        e = S_ISDIR(e->mode) ? tree_child(e, path, length) : NULL;
        path += length + 1;
    }
    return e;
}
