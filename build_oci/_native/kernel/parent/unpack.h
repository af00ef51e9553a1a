/*
 * The tree that an image unpacks to, without unpacking it: the merged table of its layers (lower.h)
 * as an entry table (tree.h), which is packed, split and compared like the tree of a directory.
 *
 * Contents stay in the archives. The tar reader has noted where in its archive a member's content
 * begins; every archive is open as one descriptor, a layer's own blob where that is uncompressed,
 * else a spool. An entry with ENTRY_IN_ARCHIVE says by `dev` in which of them its content lies and
 * by `ino` where: no two members have the same place, so the two name the inode as well, as hard
 * links need it.
 *
 * What clients do not agree about (lower_is_certain) is refused, but for two things. A directory
 * whose metadata some clients lose is as its own member says; a directory that no member describes
 * is root's, with the mode 0755 and the time 0.
 */
#ifndef BUILD_OCI_UNPACK_H
#define BUILD_OCI_UNPACK_H

#include "lower.h"
#include "tree.h"

/* The members of one archive, and where it is to be read. */
typedef struct unpack_source {
    const member *members;
    size_t count;
    int fd;         /* stays with the caller */
    uint64_t start; /* where in it the archive begins */
    int is_ours;    /* nobody else can write to it, so that digests need not be computed again */
} unpack_source;

typedef struct unpack {
    tree tree;
    const lower *lower;
    unpack_source *sources;
    size_t sources_count;
    entry **waiting; /* directories whose children are to be made */
    size_t waiting_count, waiting_capacity;
    const lower_node **sorted; /* scratch: the children of one directory */
    size_t sorted_capacity;
    size_t entries;
    size_t memory_limit;
    int has_owner;
    uint32_t uid, gid;     /* of every entry, where there is an owner */
    int take_instructions; /* user.component and user.update-interval go to `instructions` */
    char error[512];       /* why the last call failed; empty without memory */
} unpack;

/*
 * The tree of LOWER, whose members are those of SOURCES (copied). LOWER must stay until the tree is
 * complete, the members as long as the tree. It refuses to grow beyond MEMORY_LIMIT bytes. NULL
 * without memory.
 */
unpack *unpack_new(const lower *, const unpack_source *sources, size_t count, size_t memory_limit);

/* Makes about LIMIT more entries; 0 when there are no more, 1 when there are, -1 with `error` set.
 */
int unpack_more(unpack *, size_t limit);

/* The entry PATH, without a slash at either end, of the complete tree; NULL where there is none.
 * Symbolic links are not followed. */
const entry *unpack_find(const unpack *, const char *path, size_t size);

void unpack_free(unpack *);

#endif
