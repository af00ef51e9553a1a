#include "diff.h"

#include "grow.h"
#include "inodes.h"
#include "records.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct diff {
    tree *tree;
    const lower *lower;
    const header_options *options;
    const sha256_kernel *kernel;
    entry **order;
    size_t count;
    inode_table inodes; /* empty where every name is a file of its own */
    size_t unchanged, whiteouts;
    int adding; /* nothing goes but what is removed, and directories stay as they are */
    const lower_node **removed; /* sorted by address */
    size_t removed_count;
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
 * Is a time of the parent the tree's, to the precision that the parent's writer had? A side without
 * a fraction may have had one that was never written down. And a writer that keeps times as doubles
 * (Python's tarfile) has rounded the file's time to the nearest one.
 */
static int same_time(int64_t mtime, uint32_t ns, const member *m)
{
    if (mtime == m->mtime && (ns == m->mtime_ns || !ns || !m->mtime_ns))
        return 1;
    if (!(m->flags & MEMBER_FLOAT_TIME) || !ns || mtime < m->mtime - 1 || mtime > m->mtime + 1)
        return 0;
    int exponent;
    frexp((double)mtime, &exponent);
    /* from one double to the next, in nanoseconds */
    double step = ldexp(1e9, exponent - DBL_MANT_DIG);
    int64_t apart = (mtime - m->mtime) * 1000000000 + ns - m->mtime_ns;
    return (double)(apart < 0 ? -apart : apart) <= step;
}

static int same_metadata(const diff *d, const entry *e, const member *m)
{
    int64_t mtime = d->options->has_epoch ? d->options->epoch : e->mtime;
    uint32_t mtime_ns = d->options->has_epoch ? 0 : e->mtime_ns;
    /* a symbolic link has no mode on Linux */
    uint32_t mode_bits = S_ISLNK(e->mode) ? S_IFMT : S_IFMT | 07777;
    if ((e->mode ^ m->mode) & mode_bits || e->uid != m->uid || e->gid != m->gid ||
        !same_time(mtime, mtime_ns, m))
        return 0;
    if (!records_match(d->kernel, m, e->xattrs, e->xattrs_size))
        return 0;
    switch (e->mode & S_IFMT) {
    case S_IFREG: return e->size == m->size;
    case S_IFLNK:
        return e->target_size == m->target_size && !memcmp(e->target, m->target, e->target_size);
    case S_IFCHR:
    case S_IFBLK: return e->rdev == m->rdev;
    default: return 1;
    }
}

/* Gathers for every inode of the tree how many names it has, and whether all of them are names of
 * one inode in the parent, none or all of them in the place of something removed: a name that is
 * written again takes its other names along. */
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
        if (!inode || group->lower != inode || !lower_is_certain(node) ||
            (e->flags ^ group->first->flags) & ENTRY_REPLACES)
            group->differs = 1;
    }
}

/* Does the parent have the very same set of names for this file? */
static int same_names(const diff *d, const entry *e)
{
    const inode_group *group = inodes_group(&d->inodes, e);
    if (d->adding && !(e->flags & ENTRY_REPLACES))
        return !group || !group->differs; /* its other names stay with it */
    return group ? !group->differs && lower_of(e)->inode->names == group->names
                 : lower_of(e)->inode->names == 1;
}

static int is_unchanged(const diff *d, const entry *e)
{
    const lower_node *node = lower_of(e);
    const member *m = node ? node->inode->member : NULL;
    if (!m || !lower_is_certain(node) || !same_metadata(d, e, m))
        return 0;
    return !S_ISREG(e->mode) ||
           (same_names(d, e) && !memcmp(e->digest, m->digest, sizeof e->digest));
}

/*
 * The tree's own names .wh.NAME go into the layer as they are, so clients read them as whiteouts:
 * does one hide NAME? Then what the parent has of it is as good as gone: it needs no whiteout from
 * us, which would be a second member of that name, and counts as unchanged no more.
 */
static int is_hidden_by_tree(const entry *directory, const char *name, size_t size)
{
    char whiteout[4 + NAME_MAX] = ".wh.";
    if (!(directory->flags & ENTRY_WHITEOUT_NAMES) || size > NAME_MAX)
        return 0;
    memcpy(whiteout + 4, name, size);
    return tree_child(directory, whiteout, size + 4) || tree_child(directory, ".wh..wh..opq", 12);
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
    *w = (entry){.parent = directory,
                 .name = name,
                 .name_size = (uint16_t)(hidden->name_size + 4) /* at most 4 + NAME_MAX */,
                 .nlink = 1,
                 .flags = ENTRY_WHITEOUT};
    w->mode = S_IFREG | (m ? m->mode & 07777 : 0755);
    if (m) {
        w->uid = m->uid;
        w->gid = m->gid;
        w->mtime = m->mtime;
        w->mtime_ns = m->mtime_ns;
    }
    return w;
}

static int by_address(const void *left, const void *right)
{
    uintptr_t a = (uintptr_t)*(const lower_node *const *)left,
              b = (uintptr_t)*(const lower_node *const *)right;
    return (a > b) - (a < b);
}

static int is_removed(const diff *d, const lower_node *node)
{
    return bsearch(&node, d->removed, d->removed_count, sizeof(const lower_node *), by_address) !=
           NULL;
}

static int add_whiteouts(diff *d, entry *directory)
{
    const lower_node *node = lower_of(directory);
    directory->whiteouts = NULL;
    if (!is_lower_directory(node))
        return 0;
    size_t count = 0, capacity = 0;
    entry **found = NULL;
    int all = !d->adding || directory->flags & ENTRY_REPLACES;
    for (const lower_node *child = all || d->removed_count ? node->child : NULL; child;
         child = child->next) {
        if (!all && !is_removed(d, child))
            continue;
        if (tree_child(directory, child->name, child->name_size) ||
            is_hidden_by_tree(directory, child->name, child->name_size))
            continue;
        if (GROW(&found, &capacity, count + 1) ||
            !(found[count++] = new_whiteout(d, directory, child))) {
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

/* A directory that is there already stays as it is; should it be emitted for what is in it, then
 * with its own header. */
static int keeps_directory(const diff *d, entry *e)
{
    if (!d->adding || e->flags & ENTRY_REPLACES || !S_ISDIR(e->mode) ||
        !is_lower_directory(lower_of(e)))
        return 0;
    const member *m = lower_of(e)->inode->member;
    e->mode = m ? m->mode : S_IFDIR | 0755;
    e->uid = m ? m->uid : 0;
    e->gid = m ? m->gid : 0;
    e->mtime = m ? m->mtime : 0;
    e->mtime_ns = m ? m->mtime_ns : 0;
    e->xattrs = m ? m->xattrs : NULL;
    e->xattrs_size = m ? m->xattrs_size : 0;
    e->flags |= ENTRY_OWN_TIME;
    return 1;
}

static int mark(diff *d)
{
    for (size_t i = 0; i < d->count; i++)
        if (d->order[i]->parent &&
            (keeps_directory(d, d->order[i]) || is_unchanged(d, d->order[i])))
            d->order[i]->flags |= ENTRY_UNCHANGED;
    /* Backwards: everything below a directory comes before it, and keeps it if it is emitted
     * itself. */
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

static int begin(diff *d, int preserve_links)
{
    tree *t = d->tree;
    d->order = tree_order(t, &d->count);
    if (!d->order || (preserve_links && inodes_begin(&d->inodes, d->order, d->count)))
        return -1;
    t->root.lower = &d->lower->root;
    for (size_t i = 1; i < d->count; i++) {
        entry *e = d->order[i];
        const lower_node *directory = lower_of(e->parent);
        e->lower =
            is_lower_directory(directory) && !is_hidden_by_tree(e->parent, e->name, e->name_size)
                ? lower_find(d->lower, directory, e->name, e->name_size)
                : NULL;
        e->flags |= e->parent->flags & ENTRY_REPLACES;
    }
    return 0;
}

static void end(diff *d, size_t *unchanged, size_t *whiteouts)
{
    *unchanged = d->unchanged;
    *whiteouts = d->whiteouts;
    inodes_end(&d->inodes);
    free(d->order);
    free(d->removed);
}

int diff_mark(tree *t, const lower *l, const header_options *options, int preserve_links,
              size_t *unchanged, size_t *whiteouts)
{
    diff d = {.tree = t,
              .lower = l,
              .options = options,
              .kernel = sha256_kernel_at(sha256_kernel_best())};
    int status = begin(&d, preserve_links);
    if (!status) {
        gather_names(&d);
        status = mark(&d);
    }
    end(&d, unchanged, whiteouts);
    return status;
}

/* The next component of the path from AT to END, after which *AT stands. */
static size_t component(const char **at, const char *end, const char **name)
{
    const char *slash = memchr(*at, '/', (size_t)(end - *at));
    *name = *at;
    *at = slash ? slash + 1 : end;
    return (size_t)((slash ? slash : end) - *name);
}

/* Notes what the removed PATH is below, and sees that the tree has the directory that its whiteout
 * goes to. -1 without memory, 1: not there. */
static int remove_path(diff *d, const char *path)
{
    const char *at = path, *end = path + strlen(path), *name;
    const lower_node *node = &d->lower->root;
    while (node && at < end) {
        size_t size = component(&at, end, &name);
        node = lower_find(d->lower, node, name, size);
    }
    if (!node || !*path)
        return 1;
    d->removed[d->removed_count++] = node;
    entry *e = &d->tree->root;
    for (at = path; at < end;) {
        size_t size = component(&at, end, &name);
        entry *below = S_ISDIR(e->mode) ? tree_child(e, name, size) : NULL;
        if (!below && at < end && S_ISDIR(e->mode) &&
            !(below = tree_insert_directory(d->tree, e, name, size)))
            return -1;
        if (!below)
            break;
        e = below;
    }
    return 0;
}

/* What the tree has in place of a removed PATH. */
static void mark_replacing(diff *d, const char *path)
{
    const char *at = path, *end = path + strlen(path), *name;
    entry *e = &d->tree->root;
    while (e && at < end) {
        size_t size = component(&at, end, &name);
        e = S_ISDIR(e->mode) ? tree_child(e, name, size) : NULL;
    }
    if (e)
        e->flags |= ENTRY_REPLACES;
}

static const entry *find_covering(const diff *d)
{
    for (size_t i = 1; i < d->count; i++) {
        const entry *e = d->order[i];
        if (lower_of(e) && !(e->flags & ENTRY_REPLACES) &&
            is_lower_directory(lower_of(e)) != !!S_ISDIR(e->mode))
            return e;
    }
    return NULL;
}

int diff_add(tree *t, const lower *l, const header_options *options, int preserve_links,
             const char *const *removed, size_t removed_count, size_t *unchanged, size_t *whiteouts,
             size_t *missing, problem *out)
{
    diff d = {.tree = t,
              .lower = l,
              .options = options,
              .kernel = sha256_kernel_at(sha256_kernel_best()),
              .adding = 1};
    *out = (problem){0};
    *missing = SIZE_MAX;
    d.removed = malloc((removed_count + 1) * sizeof *d.removed);
    int status = d.removed ? 0 : -1;
    for (size_t i = 0; !status && i < removed_count; i++)
        if ((status = remove_path(&d, removed[i])) > 0)
            *missing = i;
    if (!status) {
        qsort(d.removed, d.removed_count, sizeof *d.removed, by_address);
        for (size_t i = 0; i < removed_count; i++)
            mark_replacing(&d, removed[i]);
        status = begin(&d, preserve_links);
    }
    const entry *covering = status ? NULL : find_covering(&d);
    if (covering) {
        *out = (problem){.kind = PROBLEM_COVERS, .at = covering};
        status = 1;
    }
    if (!status) {
        keeps_directory(&d, &t->root);
        gather_names(&d);
        status = mark(&d);
    }
    end(&d, unchanged, whiteouts);
    return status;
}
