/*
 * What a parent image holds: the members of its layers merged, in order, into one tree of names
 * over inodes.
 *
 * Clients do not agree about every image (see the rule in reader_member.c). Where they do not, the
 * table holds the names of all of them, and says of each that it is in doubt. Such a name never
 * counts as equal to an entry of the tree. Where the tree lacks it, a whiteout removes it for every
 * client. In doubt are:
 *
 * - A name whose path leads through a symbolic link: lib/foo on top of lib -> usr/lib. One client
 *   follows the link (vfs, umoci), another puts a directory in its place (overlay). So lib becomes
 *   a directory that remembers the link, and both lib/foo and usr/lib/foo stand in the table. A
 *   whiteout through a link may have removed what the link leads to. A link or a file that a
 *   whiteout leads through stays (vfs, umoci) or becomes a directory (overlay).
 * - What stands before its own whiteout in one layer: containers/storage removes it, umoci does
 *   not.
 * - A name that one layer has twice.
 * - A member with MEMBER_AMBIGUOUS.
 * - A file one of whose hard links claims other metadata.
 * - The metadata of a directory in which a layer has something without an entry for the directory
 *   itself: vfs keeps its mode and owner, overlay does not.
 *
 * Doubt in a name and all below it is kept as three numbers. `sequence` counts members over all
 * layers. `placed` is its value when the name was put there last, `doubted` its value when the name
 * or a directory above came into doubt. What was placed later is certain again.
 *
 * Built by one thread (lower_apply for each layer, the bottom one first), then only read, by any
 * number of threads, without locks.
 */
#ifndef BUILD_OCI_LOWER_H
#define BUILD_OCI_LOWER_H

#include "arena.h"
#include "member.h"
#include "member_name.h"

#include <stddef.h>

/* A file, whatever its names. */
typedef struct lower_inode {
    /* NULL for a directory that no layer describes, but that something stands in */
    const member *member;
    uint32_t names; /* how many names of it are left */
    uint32_t vague; /* clients do not agree about its metadata */
} lower_inode;

/* The inode of a directory that clients have instead of a symbolic link, or with it. */
typedef struct lower_shadow {
    lower_inode inode;
    const member *link;
} lower_shadow;

enum {
    NODE_NAMED = 1, /* a member has this very name; else something below it has */
    /* a directory with metadata that clients do not agree about, whatever is below */
    NODE_VAGUE = 2,
    NODE_SHADOW = 4, /* `inode` is that of a lower_shadow */
};

typedef struct lower_node lower_node;

struct lower_node {
    lower_node *parent;
    const char *name; /* base name, not terminated */
    lower_inode *inode;
    lower_node *child;           /* of a directory: any of its children, the others by `next` */
    lower_node *next, *previous; /* among the children of `parent` */
    uint32_t hash;               /* of parent and name */
    /* see above; `doubted` is 0 for never, and counts for all below once a layer is complete */
    uint32_t placed, doubted;
    uint16_t name_size; /* at most NAME_MAX */
    uint16_t flags;
};

enum { LOWER_PLACES = 16 };

typedef struct lower {
    lower_node root;
    lower_inode root_inode;
    arena arena;
    lower_node **slots; /* open addressing by (parent, name); NULL is free */
    size_t mask, used, removed;
    size_t memory_limit;
    uint32_t sequence;    /* members so far */
    uint32_t layer_start; /* the sequence of the layer's first member */
    int doubtful;         /* has the layer brought doubt? */
    uint64_t steps; /* components of symbolic links' targets so far: their number is bounded */
    struct {
        lower_node *directory;
        int in_doubt, followed; /* does a symbolic link stand in the way; has one been followed? */
    } places[LOWER_PLACES];     /* where the member at hand may stand */
    size_t places_count;
    passing_name name; /* of the member at hand */
    /* Where the member before has been placed without any doubt, and itself where it is a
     * directory, with the sizes of their names; NULL: not so. */
    lower_node *directory, *itself;
    size_t directory_size, itself_size;
    char error[512]; /* why the last call failed */
} lower;

/* An empty table that refuses to grow beyond MEMORY_LIMIT bytes: one long name in an archive can
 * make thousands of directories. */
lower *lower_new(size_t memory_limit);

/*
 * Put one layer on top: lower_begin(); lower_hide() for all its members, which looks at the
 * whiteouts only, wherever they stand; lower_place() for all of them again; lower_end(). Both take
 * the members in their order, in as many calls as the caller likes. They must stay where they are
 * as long as the table lives. -1 with `error` set: a hard link to nothing, too much for the memory.
 */
void lower_begin(lower *);
int lower_hide(lower *, const member *members, size_t count);
int lower_place(lower *, const member *members, size_t count);
void lower_end(lower *);

/* Do clients agree about what this name is, whatever is below it? To be asked between layers. */
int lower_is_certain(const lower_node *);

/* The child NAME of PARENT, or NULL. */
lower_node *lower_find(const lower *, const lower_node *parent, const char *name, size_t size);

/* Bytes that the table takes. */
size_t lower_held(const lower *);

void lower_free(lower *);

#endif
