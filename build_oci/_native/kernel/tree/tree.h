/*
 * The entry table of one root file system: what the walk found, and what the diff and the plan add
 * to it.
 *
 * Built by walk.c from several threads, each with an arena of its own; complete once the walk has
 * ended. From then on entries stay where they are. The diff and the partition (one thread) may set
 * `flags`, `digest`, `link` and `whiteouts`; packing (many threads) sets only the `digest` of the
 * entry that it packs.
 */
#ifndef BUILD_OCI_TREE_H
#define BUILD_OCI_TREE_H

#include "arena.h"
#include "fingerprint.h"
#include "problem.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/stat.h>

enum {
    ENTRY_DIGEST_KNOWN = 1, /* `digest` holds the SHA-256 of the content */
    ENTRY_UNCHANGED = 2,    /* the parent image has it: not emitted */
    ENTRY_WHITEOUT = 4,     /* made by the diff: an empty file that hides a name of the parent */
    /* `digest` comes from the attribute user.checksum.sha256, or was computed in safety: it is
     * not computed again */
    ENTRY_BELIEVED = 8,
    ENTRY_WHITEOUT_NAMES = 16, /* a directory: a name in it begins with .wh. */
    /* a regular file: its content is in tree.sources[dev] at the offset `ino` (see unpack.h) */
    ENTRY_IN_ARCHIVE = 32,
    /* made by the diff: a directory of the image below, which keeps its time whatever the epoch */
    ENTRY_OWN_TIME = 64,
    ENTRY_REPLACES = 128, /* made by the diff: what the image below has here is removed */
};

struct entry {
    entry *parent;    /* the directory it stands in; NULL for the root */
    const char *name; /* base name, NUL-terminated; "" for the root */
    union {
        const char *target; /* of a symbolic link, NUL-terminated */
        /* of a regular file that is read twice: a slot for each slice; else NULL: see
         * tree_take_fingerprints() */
        _Atomic uint64_t *fingerprints;
    };
    /* packed by xattr_pack order: see xattr.h; NULL where there are none */
    const uint8_t *xattrs;
    /* likewise those that say how to build, and are not written: see xattr_is_instruction() */
    const uint8_t *instructions;
    /* of a directory: one block, files sorted by name, then subdirectories sorted by name */
    entry *children;
    union {
        entry *link;      /* of a regular file: the entry it is a hard link to, or NULL */
        entry *whiteouts; /* of a directory: first of its whiteouts, sorted by name */
    };
    union {
        entry *next; /* of a whiteout: the next one in the same directory */
        /* of any other entry, while the diff works: what the parent image has of that name */
        const void *lower;
        /* of any other emitted entry, from the partition on: its place in tar order among them */
        size_t number;
        /* of a directory, while the walk works: the places in patterns that it has reached
         * (exclude.h) */
        const void *excluded;
    };
    uint64_t dev, ino, size, rdev;
    int64_t mtime; /* whole seconds, rounded down */
    uint32_t mtime_ns;
    uint32_t mode, uid, gid; /* mode with the type bits */
    uint32_t nlink;
    /* of a directory: all children, and how many of them are no directories */
    uint32_t children_count, files_count;
    uint32_t xattrs_size, instructions_size;
    uint16_t name_size, target_size;
    /* atomic: while some threads fill a large file's segments, another sets ENTRY_DIGEST_KNOWN */
    _Atomic uint16_t flags;
    uint8_t digest[32];
};

typedef struct tree {
    char *root_path; /* without a closing slash, NUL-terminated; "" for / itself */
    entry root;
    arena arena; /* for what the diff and the plan add */
    /* bytes of a file that one fingerprint stands for; larger files are always read twice: hashed,
     * then packed */
    uint64_t slice_size;
    fingerprint_key key;
    /* descriptors of the archives that contents are in; NULL where they are files below the root */
    const int *sources;
} tree;

/* The path of ENTRY below the root, without a leading slash, into OUT if not NULL; the length
 * without the NUL. */
size_t entry_path(const entry *, char *out);

/* All entries, whiteouts included, in tar order: a directory, its whiteouts, its files, its
 * subdirectories. NULL without memory. */
entry **tree_order(tree *, size_t *count);

/* The child NAME of DIRECTORY, whatever its type; NULL where there is none. */
entry *tree_child(const entry *directory, const char *name, size_t size);

/* The directory NAME, new and empty, in DIRECTORY, whose other children move in memory. NULL
 * without memory. One thread at a time. */
entry *tree_insert_directory(tree *, entry *directory, const char *name, size_t size);

/*
 * A file that is larger than a slice is read twice, hashed first and packed later; where there is a
 * parent or a previous image, every file is. Whoever comes to a slice first leaves its fingerprint,
 * whoever comes second compares: so the digest is that of the bytes that are packed. Gives E the slots for that, all empty. -1 without memory. One thread at a
 * time.
 */
int tree_take_fingerprints(tree *, entry *e);

/* Leaves or compares the FINGERPRINT of the slice that starts at OFFSET or around it. 0 if it
 * differs from what the other reading saw. */
int tree_same_slice(const tree *, const entry *e, uint64_t offset, uint64_t fingerprint);

/* The same for all slices of E, whose whole CONTENT is given. */
int tree_same_content(const tree *, const entry *e, const uint8_t *content);

/* A directory that is open, so that those below it can be opened without a walk from the root; all
 * zero: none. */
typedef struct open_directory {
    const entry *directory; /* NULL: none */
    int fd;                 /* the owner closes it */
} open_directory;

/*
 * A descriptor of the directory, whatever the length of its path, that is the very directory the
 * walk saw (device and inode). One call where NEAR (may be NULL) is its parent or its path is
 * shorter than PATH_MAX; else a call for each PATH_MAX bytes below NEAR, if that is above it, or
 * below the root. -1 with OUT filled on failure.
 */
int tree_open_directory(const tree *, const entry *directory, const open_directory *near,
                        problem *out);

/* Does an archive hold content for E? */
int entry_has_content(const entry *);

/* Is this what the walk saw there? Compares device, inode and type. */
int entry_is(const entry *, const struct stat *);

#endif
