#include "diff.h"

#include "inodes.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct diff {
    tree *tree;
    const lower *lower;
    const header_options *options;
    entry **order;
    size_t count;
    inode_table inodes; /* empty where every name is a file of its own */
    size_t unchanged, whiteouts;
} diff;

static const lower_node *lower_of(const entry *e)
{
    return e->lower;
}


static int is_lower_directory(const lower_node *node)
{
    return node && (!node->inode->member || S_ISDIR(node->inode->member->mode));
}

/*
 * Is a time of the parent the tree's, to the precision that the parent's writer had? A side without a fraction may have had one that was
 * never written down. And a writer that keeps times as doubles (Python's tarfile) has rounded the file's time to the nearest one.
 */
static int same_time(int64_t mtime, uint32_t ns, const member *m)
{
    if (mtime == m->mtime && (ns == m->mtime_ns || !ns || !m->mtime_ns))
        return 1;
    if (!(m->flags & MEMBER_FLOAT_TIME) || !ns || mtime < m->mtime - 1 || mtime > m->mtime + 1)
        return 0;
    int exponent;
    frexp((double)mtime, &exponent);
    double step = ldexp(1e9, exponent - DBL_MANT_DIG); /* from one double to the next, in nanoseconds */
    int64_t apart = (mtime - m->mtime) * 1000000000 + ns - m->mtime_ns;
    return (double)(apart < 0 ? -apart : apart) <= step;
}

static int same_metadata(const diff *d, const entry *e, const member *m)
{
    int64_t mtime = d->options->has_epoch ? d->options->epoch : e->mtime;
    uint32_t mtime_ns = d->options->has_epoch ? 0 : e->mtime_ns;
    uint32_t mode_bits = S_ISLNK(e->mode) ? S_IFMT : S_IFMT | 07777; /* a symbolic link has no mode on Linux */
    if ((e->mode ^ m->mode) & mode_bits || e->uid != m->uid || e->gid != m->gid || !same_time(mtime, mtime_ns, m))
        return 0;
    if (e->xattrs_size != m->xattrs_size || (e->xattrs_size && memcmp(e->xattrs, m->xattrs, e->xattrs_size)))
        return 0;
    switch (e->mode & S_IFMT) {
    case S_IFREG: return e->size == m->size;
    case S_IFLNK: return e->target_size == m->target_size && !memcmp(e->target, m->target, e->target_size);
    case S_IFCHR:
    case S_IFBLK: return e->rdev == m->rdev;
    default: return 1;
    }
}

/* Gathers for every inode of the tree how many names it has, and whether all of them are names of one inode in the parent. */
static void gather_names(diff *d)
{
    for (size_t i = 0; i < d->count; i++) {
        entry *e = d->order[i];
        inode_group *group = inodes_group(&d->inodes, e);
        if (!group)
            continue;
        const lower_node *node = lower_of(e);
        const lower_inode *inode = node ? node->inode : NULL;
        if (!inodes_first(&d->inodes, e))
            group->lower = inode;
        if (!inode || group->lower != inode || !lower_is_certain(node))
            group->differs = 1;
    }
}

/* Does the parent have the very same set of names for this file? */
static int same_names(const diff *d, const entry *e)
{
    const inode_group *group = inodes_group(&d->inodes, e);
    return group ? !group->differs && lower_of(e)->inode->names == group->names : lower_of(e)->inode->names == 1;
}

static int is_unchanged(const diff *d, const entry *e)
{
    const lower_node *node = lower_of(e);
    const member *m = node ? node->inode->member : NULL;
    if (!m || !lower_is_certain(node) || !same_metadata(d, e, m))
        return 0;
    return !S_ISREG(e->mode) || (same_names(d, e) && !memcmp(e->digest, m->digest, sizeof e->digest));
}

/* Is there a child of that name, whatever its type? Files and subdirectories are two sorted ranges. */
static int has_child(const entry *directory, const char *name, size_t size)
{
    const entry *ranges[2] = {directory->children, directory->children + directory->files_count};
    size_t counts[2] = {directory->files_count, directory->children_count - directory->files_count};
    for (int i = 0; i < 2; i++) {
        size_t low = 0, high = counts[i];
        while (low < high) {
            size_t middle = low + (high - low) / 2;
            const entry *e = &ranges[i][middle];
            size_t shorter = e->name_size < size ? e->name_size : size;
            int order = memcmp(e->name, name, shorter);
            if (!order)
                order = (e->name_size > size) - (e->name_size < size);
            if (!order)
                return 1;
            if (order < 0)
                low = middle + 1;
            else
                high = middle;
        }
    }
    return 0;
}

/*
 * The tree's own names .wh.NAME go into the layer as they are, so clients read them as whiteouts: does one hide NAME? Then what the parent
 * has of it is as good as gone: it needs no whiteout from us, which would be a second member of that name, and counts as unchanged no more.
 */
static int is_hidden_by_tree(const entry *directory, const char *name, size_t size)
{
    char whiteout[4 + NAME_MAX] = ".wh.";
    if (!(directory->flags & ENTRY_WHITEOUT_NAMES) || size > NAME_MAX)
        return 0;
    memcpy(whiteout + 4, name, size);
    return has_child(directory, whiteout, size + 4) || has_child(directory, ".wh..wh..opq", 12);
}

static int by_name(const void *left, const void *right)
{
    return strcmp((*(entry *const *)left)->name, (*(entry *const *)right)->name);
}

static entry *new_whiteout(diff *d, entry *directory, const lower_node *hidden)
{
    const member *m = hidden->inode->member;
    entry *w = arena_take(&d->tree->arena, sizeof *w);
    char *name = arena_take_bytes(&d->tree->arena, (size_t)hidden->name_size + 5);
    if (!w || !name)
        return NULL;
    memcpy(name, ".wh.", 4);
    memcpy(name + 4, hidden->name, hidden->name_size);
    name[hidden->name_size + 4] = 0;
    *w = (entry){.parent = directory, .name = name, .name_size = (uint16_t)(hidden->name_size + 4) /* at most 4 + NAME_MAX */, .nlink = 1, .flags = ENTRY_WHITEOUT};
    w->mode = S_IFREG | (m ? m->mode & 07777 : 0755);
    if (m) {
        w->uid = m->uid;
        w->gid = m->gid;
        w->mtime = m->mtime;
        w->mtime_ns = m->mtime_ns;
    }
    return w;
}

static int add_whiteouts(diff *d, entry *directory)
{
    const lower_node *node = lower_of(directory);
    directory->whiteouts = NULL;
    if (!is_lower_directory(node))
        return 0;
    size_t count = 0, capacity = 0;
    entry **found = NULL;
    for (const lower_node *child = node->child; child; child = child->next) {
        if (has_child(directory, child->name, child->name_size) || is_hidden_by_tree(directory, child->name, child->name_size))
            continue;
        if (count == capacity) {
            capacity = capacity ? 2 * capacity : 16;
            entry **more = realloc(found, capacity * sizeof *more);
            if (!more) {
                free(found);
                return -1;
            }
            found = more;
        }
        if (!(found[count++] = new_whiteout(d, directory, child))) {
            free(found);
            return -1;
        }
    }
    if (count) {
        qsort(found, count, sizeof *found, by_name);
        for (size_t i = count; i-- > 0;) {
            found[i]->next = directory->whiteouts;
            directory->whiteouts = found[i];
        }
        directory->flags &= ~ENTRY_UNCHANGED;
        d->whiteouts += count;
    }
    free(found);
    return 0;
}

static int mark(diff *d)
{
    for (size_t i = 0; i < d->count; i++)
        if (d->order[i]->parent && is_unchanged(d, d->order[i]))
            d->order[i]->flags |= ENTRY_UNCHANGED;
    /* Backwards: everything below a directory comes before it, and keeps it if it is emitted itself. */
    for (size_t i = d->count; i-- > 0;) {
        entry *e = d->order[i];
        if (S_ISDIR(e->mode) && add_whiteouts(d, e))
            return -1;
        if (e->flags & ENTRY_UNCHANGED)
            d->unchanged++;
        else if (e->parent)
            e->parent->flags &= ~ENTRY_UNCHANGED;
    }
    return 0;
}

int diff_mark(tree *t, const lower *l, const header_options *options, int preserve_links, size_t *unchanged, size_t *whiteouts)
{
    diff d = {.tree = t, .lower = l, .options = options};
    d.order = tree_order(t, &d.count);
    int end = !d.order || (preserve_links && inodes_begin(&d.inodes, d.order, d.count)) ? -1 : 0;
    if (!end) {
        t->root.lower = &l->root;
        for (size_t i = 1; i < d.count; i++) {
            entry *e = d.order[i];
            const lower_node *directory = lower_of(e->parent);
            e->lower = is_lower_directory(directory) && !is_hidden_by_tree(e->parent, e->name, e->name_size)
                           ? lower_find(l, directory, e->name, e->name_size)
                           : NULL;
        }
        gather_names(&d);
        end = mark(&d);
    }
    *unchanged = d.unchanged;
    *whiteouts = d.whiteouts;
    inodes_end(&d.inodes);
    free(d.order);
    return end;
}
