/*
 * What a parent image holds: the members of its layers merged, in order, into one tree of names over inodes.
 *
 * Built by one thread (lower_apply for each layer, the bottom one first), then only read, by any number of threads, without locks.
 */
#ifndef BUILD_OCI_LOWER_H
#define BUILD_OCI_LOWER_H

#include "arena.h"
#include "member.h"

#include <stddef.h>

/* A file, whatever its names. */
typedef struct lower_inode {
    const member *member; /* NULL for a directory that no layer describes, but that something stands in */
    uint32_t names;       /* how many names of it are left */
} lower_inode;

typedef struct lower_node lower_node;

struct lower_node {
    lower_node *parent;
    const char *name;  /* base name, not terminated */
    lower_inode *inode;
    lower_node *child; /* of a directory: any of its children, the others by `next` */
    lower_node *next, *previous; /* among the children of `parent` */
    uint32_t name_size;
    uint32_t hash;  /* of parent and name */
    uint32_t layer; /* that named it last */
};

typedef struct lower {
    lower_node root;
    lower_inode root_inode;
    arena arena;
    lower_node **slots; /* open addressing by (parent, name); NULL is free */
    size_t mask, used, removed;
    size_t memory_limit;
    uint32_t layers;
    char error[512]; /* why the last lower_apply failed */
} lower;

/* An empty table that refuses to grow beyond MEMORY_LIMIT bytes: one long name in an archive can make thousands of directories. */
lower *lower_new(size_t memory_limit);

/*
 * Puts one layer on top: first its whiteouts, wherever they stand in it, then its members. They must stay where they are as long as the
 * table lives. -1 with `error` set: a hard link to nothing, too much for the memory.
 */
int lower_apply(lower *, const member *members, size_t count);

/* The child NAME of PARENT, or NULL. */
lower_node *lower_find(const lower *, const lower_node *parent, const char *name, size_t size);

void lower_free(lower *);

#endif
