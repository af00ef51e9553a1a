#include "diff.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    TOGETHER = 64 * 1024,     /* files up to this size are read side by side and hashed in two lanes */
    BATCH_BYTES = 1024 * 1024,
    BATCH_FILES = 256,
};

static const lower_node *lower_of(const entry *e)
{
    return e->lower;
}


static int is_lower_directory(const lower_node *node)
{
    return node && (!node->inode->member || S_ISDIR(node->inode->member->mode));
}

static int same_metadata(const diff *d, const entry *e, const member *m)
{
    int64_t mtime = d->options.has_epoch ? d->options.epoch : e->mtime;
    uint32_t mtime_ns = d->options.has_epoch ? 0 : e->mtime_ns;
    if (e->mode != m->mode || e->uid != m->uid || e->gid != m->gid || mtime != m->mtime)
        return 0;
    /* A side without a fraction may have had one that was never written down. */
    if (mtime_ns && m->mtime_ns && mtime_ns != m->mtime_ns)
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

/* The names of one inode in the tree, held against the names of one inode in the parent. */
typedef struct group {
    entry *first;
    uint32_t names;
    int one_inode; /* do all of them have the lower inode of the first? */
} group;

typedef struct group_table {
    group *slots;
    size_t mask;
} group_table;

static group *group_of(const group_table *groups, const entry *e)
{
    size_t slot = (size_t)(((e->ino ^ (e->dev << 40 | e->dev >> 24)) * 0x9e3779b97f4a7c15u) >> 32) & groups->mask;
    while (groups->slots[slot].first && (groups->slots[slot].first->ino != e->ino || groups->slots[slot].first->dev != e->dev))
        slot = (slot + 1) & groups->mask;
    return &groups->slots[slot];
}

static int find_groups(const diff *d, group_table *groups, int preserve)
{
    size_t linked = 0;
    for (size_t i = 0; i < d->order_count; i++)
        linked += S_ISREG(d->order[i]->mode) && d->order[i]->nlink > 1;
    if (!linked || !preserve)
        return 0;
    groups->mask = 15;
    while (groups->mask < 2 * linked)
        groups->mask = 2 * groups->mask + 1;
    if (!(groups->slots = calloc(groups->mask + 1, sizeof *groups->slots)))
        return -1;
    for (size_t i = 0; i < d->order_count; i++) {
        entry *e = d->order[i];
        if (!S_ISREG(e->mode) || e->nlink < 2)
            continue;
        group *g = group_of(groups, e);
        if (!g->first)
            *g = (group){.first = e, .one_inode = 1};
        const lower_node *ours = lower_of(e), *firsts = lower_of(g->first);
        g->names++;
        if (!ours || !firsts || ours->inode != firsts->inode)
            g->one_inode = 0;
    }
    return 0;
}

/* Does the parent have the very same set of names for this file? Leaves the first of them in e->link, whose digest serves for all. */
static int same_names(const group_table *groups, entry *e)
{
    e->link = NULL;
    uint32_t names = 1;
    if (groups->slots && e->nlink > 1) {
        group *g = group_of(groups, e);
        if (!g->one_inode)
            return 0;
        names = g->names;
        e->link = g->first == e ? NULL : g->first;
    }
    return lower_of(e)->inode->names == names;
}

static int same_digest(const entry *e)
{
    const entry *content = S_ISREG(e->mode) && e->link ? e->link : e;
    return !memcmp(content->digest, lower_of(e)->inode->member->digest, 32);
}

static int compare(diff *d, const group_table *groups)
{
    d->candidates = malloc(d->order_count * sizeof *d->candidates);
    if (!d->candidates)
        return -1;
    for (size_t i = 0; i < d->order_count; i++) {
        entry *e = d->order[i];
        const lower_node *node = lower_of(e);
        if (!node || !node->inode->member || !same_metadata(d, e, node->inode->member))
            continue;
        if (!S_ISREG(e->mode)) {
            e->flags |= ENTRY_UNCHANGED;
        } else if (same_names(groups, e)) {
            /* Until the digests are compared this says only that nothing else speaks against it. */
            e->flags |= ENTRY_UNCHANGED;
            if (!e->link && !(e->flags & ENTRY_DIGEST_KNOWN))
                d->candidates[d->candidates_count++] = e;
        }
    }
    return 0;
}

static int cut(diff *d)
{
    d->batches = malloc((d->candidates_count + 1) * sizeof *d->batches);
    if (!d->batches)
        return -1;
    uint64_t bytes = 0;
    for (size_t i = 0; i < d->candidates_count; i++) {
        uint64_t size = d->candidates[i]->size;
        diff_batch *last = d->batches_count ? &d->batches[d->batches_count - 1] : NULL;
        if (last && last->count < BATCH_FILES && bytes + size <= BATCH_BYTES) {
            last->count++;
            bytes += size;
        } else {
            d->batches[d->batches_count++] = (diff_batch){.first = i, .count = 1};
            bytes = size;
        }
    }
    return 0;
}

diff *diff_new(tree *t, const lower *l, const header_options *options, const sha256_kernel *kernel, int preserve_links)
{
    diff *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->tree = t;
    d->lower = l;
    d->options = *options;
    d->kernel = kernel;
    d->order = tree_order(t, &d->order_count);
    group_table groups = {0};
    if (d->order) {
        t->root.lower = &l->root;
        for (size_t i = 1; i < d->order_count; i++) {
            entry *e = d->order[i];
            const lower_node *directory = lower_of(e->parent);
            e->lower = is_lower_directory(directory) ? lower_find(l, directory, e->name, e->name_size) : NULL;
        }
    }
    if (!d->order || find_groups(d, &groups, preserve_links) || compare(d, &groups) || cut(d)) {
        free(groups.slots);
        diff_free(d);
        return NULL;
    }
    free(groups.slots);
    return d;
}

void diff_free(diff *d)
{
    free(d->order);
    free(d->candidates);
    free(d->batches);
    free(d);
}

static int hash_small(diff *d, reader *r, entry **files, size_t count, problem *out)
{
    sha256_job jobs[BATCH_FILES];
    size_t bytes = 0, used = 0;
    for (size_t i = 0; i < count; i++)
        bytes += (size_t)files[i]->size;
    uint8_t *content = malloc(bytes + 1);
    if (!content) {
        *out = (problem){.kind = PROBLEM_SYSTEM, .error = ENOMEM, .call = "malloc", .at = files[0]};
        return -1;
    }
    int end = 0;
    for (size_t i = 0; !end && i < count; i++) {
        entry *e = files[i];
        int fd = reader_open(r, e, out);
        end = fd < 0 ? -1 : content_read(fd, e, 0, content + used, (size_t)e->size, out);
        if (!end)
            end = content_unchanged(fd, e, out);
        if (fd >= 0)
            close(fd);
        jobs[i] = (sha256_job){.data = content + used, .size = (size_t)e->size, .digest = e->digest};
        used += (size_t)e->size;
    }
    if (!end) {
        sha256_many(d->kernel, jobs, count);
        for (size_t i = 0; i < count; i++)
            files[i]->flags |= ENTRY_DIGEST_KNOWN;
    }
    free(content);
    return end;
}

int diff_hash(diff *d, size_t index, problem *out)
{
    if (atomic_load_explicit(&d->cancelled, memory_order_relaxed)) {
        *out = (problem){.kind = PROBLEM_NONE, .at = &d->tree->root};
        return -1;
    }
    const diff_batch *batch = &d->batches[index];
    entry **files = d->candidates + batch->first;
    reader r;
    reader_begin(&r, d->tree);
    int end = batch->count == 1 && files[0]->size > TOGETHER ? content_digest(&r, d->kernel, files[0], &d->cancelled, out)
                                                              : hash_small(d, &r, files, batch->count, out);
    reader_end(&r);
    return end;
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
    *w = (entry){.parent = directory, .name = name, .name_size = (uint16_t)(hidden->name_size + 4), .nlink = 1, .flags = ENTRY_WHITEOUT};
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
        if (has_child(directory, child->name, child->name_size))
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

int diff_decide(diff *d)
{
    d->unchanged = d->whiteouts = 0;
    /* Backwards: everything below a directory comes before it. */
    for (size_t i = d->order_count; i-- > 0;) {
        entry *e = d->order[i];
        if (S_ISREG(e->mode) && e->flags & ENTRY_UNCHANGED && !same_digest(e))
            e->flags &= ~ENTRY_UNCHANGED;
        if (S_ISDIR(e->mode) && add_whiteouts(d, e))
            return -1;
        if (!e->parent)
            e->flags &= ~ENTRY_UNCHANGED;
        else if (!(e->flags & ENTRY_UNCHANGED))
            e->parent->flags &= ~ENTRY_UNCHANGED;
        else
            d->unchanged++;
    }
    return 0;
}
