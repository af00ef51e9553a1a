#include "inodes.h"

#include <assert.h>
#include <stdlib.h>

static int has_names(const entry *e)
{
    return S_ISREG(e->mode) && e->nlink > 1 && !(e->flags & ENTRY_WHITEOUT);
}

int inodes_begin(inode_table *t, entry *const *entries, size_t count)
{
    size_t linked = 0;
    for (size_t i = 0; i < count; i++)
        linked += (size_t)has_names(entries[i]);
    *t = (inode_table){.mask = 15};
    while (t->mask < 2 * linked)
        t->mask = 2 * t->mask + 1;
    t->slots = calloc(t->mask + 1, sizeof *t->slots);
    return t->slots ? 0 : -1;
}

inode_group *inodes_group(const inode_table *t, const entry *e)
{
    if (!t->slots || !has_names(e))
        return NULL;
    assert((t->mask & (t->mask + 1)) == 0);
    size_t slot =
        (size_t)(((e->ino ^ (e->dev << 40 | e->dev >> 24)) * 0x9e3779b97f4a7c15u) >> 32) & t->mask;
    while (t->slots[slot].first &&
           (t->slots[slot].first->ino != e->ino || t->slots[slot].first->dev != e->dev))
        slot = (slot + 1) & t->mask;
    return &t->slots[slot];
}

entry *inodes_first(const inode_table *t, entry *e)
{
    inode_group *group = inodes_group(t, e);
    if (!group)
        return NULL;
    group->names++;
    if (group->first)
        return group->first;
    group->first = e;
    return NULL;
}

void inodes_end(inode_table *t)
{
    free(t->slots);
    t->slots = NULL;
}
