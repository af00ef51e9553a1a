/* Which entries of a tree are names of one file: the regular files with more than one link, by
 * device and inode. */
#ifndef BUILD_OCI_INODES_H
#define BUILD_OCI_INODES_H

#include "tree.h"

typedef struct inode_group {
    entry *first;      /* in tar order */
    const void *lower; /* for the diff: see there */
    uint32_t names;    /* met so far */
    int differs;       /* for the diff: see there */
} inode_group;

typedef struct inode_table {
    inode_group *slots;
    size_t mask;
} inode_table;

/* Room for the files of ENTRIES. -1 without memory. All zero is a valid table that holds nothing
 * and takes nothing. */
int inodes_begin(inode_table *, entry *const *entries, size_t count);

/* The group of E, with `first` NULL at the first time; NULL where E has one name, or the table is
 * empty. */
inode_group *inodes_group(const inode_table *, const entry *e);

/* Enters E in its group: NULL where it is the first, else the first. */
entry *inodes_first(const inode_table *, entry *e);

void inodes_end(inode_table *);

#endif
