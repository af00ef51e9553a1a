/* What the two halves of a walk share: walk.c, which reads directories, and walk_xattrs.c. */
#ifndef BUILD_OCI_WALK_WORKER_H
#define BUILD_OCI_WALK_WORKER_H

#include "walk.h"
#include "xattr.h"

#include <dirent.h>
#include <limits.h>

enum { LIST_MAX = 64 * 1024 /* XATTR_LIST_MAX of the kernel */ };

/* One thread of the walk. */
struct walk_worker {
    walk_worker *next;
    arena arena;
    entry *found; /* the children of the directory at hand */
    size_t found_count, found_capacity;
    xattr *attributes; /* of the file at hand */
    size_t attributes_capacity;
    uint8_t *values; /* of these attributes, one after the other */
    size_t values_capacity;
    exclude_stepper stepper;
    DIR *stream; /* of the directory that was read last; it may be the parent of the next */
    open_directory last;
    walk_device device; /* asked for last; a device number of 0 is looked up like any other */
    int device_known;
    int read_by_path; /* were attributes of the directory at hand read by their path? */
    int ahead;        /* are attributes read before the file was looked at? */
    unsigned misled;  /* files that were not what readdir said of them */
    /* of the directory's part of `path`, with the closing slash; 0 where it does not fit */
    size_t prefix_size;
    char path[PATH_MAX];
    char list[LIST_MAX + 1];
    char target[PATH_MAX + 1];
};

/* Stops the walk, because memory is exhausted. Returns -1. */
int walk_exhausted(walk *);

/* Adds a problem with NAME in the directory AT, or with AT itself where NAME is NULL. -1: stop. */
int walk_report(walk *, problem_kind, const char *call, int error, const entry *at,
                const char *name);

/*
 * The attributes of E by its PATH. For messages it is NAME in DIRECTORY, or DIRECTORY itself where
 * NAME is NULL. -1: stop.
 *
 * The path is walked anew by each call, so a directory that was exchanged for a symbolic link would
 * let another file's attributes in. Where something was taken, the path must therefore still lead
 * to E; where nothing was, read_directory() looks at the directory once.
 */
int walk_read_xattrs(walk *, walk_worker *, entry *e, const char *path, const entry *directory,
                     const char *name);

/* The same for an E of which only type, device and inode are known, and these from readdir alone:
 * the attributes are those of a file that has them afterwards too, which is for the caller to see.
 * Nothing is reported. -1: stop; 1: they could not be read. */
int walk_read_xattrs_ahead(walk *, walk_worker *, entry *e, const char *path,
                           const entry *directory, const char *name);

#endif
