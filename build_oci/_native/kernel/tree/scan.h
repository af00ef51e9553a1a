/*
 * The parallel walk of a root file system: several threads, started by the caller, take directories from one stack.
 *
 * Every look at a file goes through the C library (fstatat, readlinkat, llistxattr, lgetxattr), dynamically linked, so that the
 * LD_PRELOAD shims under which images are built (fakeroot, fakecap) see it.
 */
#ifndef BUILD_OCI_SCAN_H
#define BUILD_OCI_SCAN_H

#include "tree.h"

#include <stdatomic.h>

enum {
    SCAN_SKIP_XATTRS = 1,     /* read no extended attributes at all */
    SCAN_TRUST_CHECKSUMS = 2, /* user.checksum.sha256 is the digest of the file */
};

typedef struct scan_worker scan_worker;

typedef struct scan {
    tree tree;
    unsigned flags;
    pthread_mutex_t lock; /* guards all below but the counters */
    pthread_cond_t wake;
    entry **waiting; /* directories that nobody has read yet */
    size_t waiting_count, waiting_capacity;
    unsigned busy; /* threads that read a directory and may find more */
    int stopped;
    int exhausted; /* of memory */
    problem *problems;
    size_t problems_count;
    scan_worker *workers; /* their arenas live as long as the tree */
    atomic_size_t entries;
} scan;

/* ROOT_PATH is copied. NULL with errno set. */
scan *scan_new(const char *root_path, unsigned flags);

/* Takes directories until none is left or the walk is stopped; called once by each thread. -1 when memory is exhausted. */
int scan_run(scan *);

/* Makes every scan_run return soon. */
void scan_stop(scan *);

void scan_free(scan *);

#endif
