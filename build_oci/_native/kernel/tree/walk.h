/*
 * The parallel walk of a root file system: several threads, started by the caller, take directories
 * from one stack.
 *
 * Every look at a file goes through the C library (fstatat, lstat, readlinkat, llistxattr,
 * lgetxattr), dynamically linked, so that the LD_PRELOAD shims under which images are built
 * (fakeroot, fakecap) see it.
 */
#ifndef BUILD_OCI_WALK_H
#define BUILD_OCI_WALK_H

#include "exclude.h"
#include "tree.h"

#include <stdatomic.h>

enum {
    WALK_SKIP_XATTRS = 1,        /* read no extended attributes at all */
    WALK_TRUST_CHECKSUMS = 2,    /* user.checksum.sha256 is the digest of the file */
    WALK_TRUST_ON_FUSE = 4,      /* it is where the file system is FUSE */
    WALK_OWNER = 8,              /* every entry belongs to `uid` and `gid` */
    WALK_TAKE_INSTRUCTIONS = 16, /* user.component and user.update-interval go to `instructions` */
};

typedef struct walk_options {
    unsigned flags;
    uint32_t uid, gid;
    const char *const *excluded; /* patterns, see exclude.h; copied */
    size_t excluded_count;
} walk_options;

/* What statfs said of one device. */
typedef struct walk_device {
    uint64_t dev;
    int is_fuse;
} walk_device;

typedef struct walk_worker walk_worker;

typedef struct walk {
    tree tree;
    walk_options options;
    exclusion *exclusion; /* NULL: nothing is left out */
    pthread_mutex_t lock; /* guards all below but the counters */
    pthread_cond_t wake;
    entry **waiting; /* directories that nobody has read yet */
    size_t waiting_count, waiting_capacity;
    unsigned busy;      /* threads that read a directory and may find more */
    atomic_int stopped; /* written under the lock, read without as well */
    int exhausted;      /* of memory */
    problem *problems;
    size_t problems_count;
    walk_worker *workers; /* their arenas live as long as the tree */
    walk_device *devices;
    size_t devices_count, devices_capacity;
    uint32_t root_uid;               /* of the root on disk */
    atomic_int owners_differ;        /* not all entries belong to it */
    atomic_size_t entries, believed; /* files whose digest is the attribute's */
} walk;

/* ROOT_PATH is copied. NULL with errno set. */
walk *walk_new(const char *root_path, const walk_options *options);

/* Takes directories until none is left or the walk is stopped; called once by each thread. -1 when
 * memory is exhausted. */
int walk_run(walk *);

/* Makes every walk_run return soon. */
void walk_stop(walk *);

void walk_free(walk *);

#endif
