/* The digests of open files, or of parts of them: as many side by side as a kernel has lanes
 * (sha256.h). */
#ifndef BUILD_OCI_FILES_H
#define BUILD_OCI_FILES_H

#include "sha256.h"

#include <stdatomic.h>

typedef struct hashed_file {
    int fd;                        /* open for reading; its offset is neither used nor moved */
    int error;                     /* the errno of a read that failed, or 0 */
    uint64_t start, most;          /* where in the file to begin, and how many bytes to read */
    uint64_t size;                 /* bytes that were read: fewer where the file ends before */
    uint8_t digest[SHA256_DIGEST]; /* of them */
} hashed_file;

/* What other threads may look at, and change, while files are hashed. All zero at the start. */
typedef struct files_progress {
    atomic_ullong done; /* bytes of all files that have been read */
    atomic_int cancelled;
} files_progress;

/*
 * Reads and hashes COUNT files. One that cannot be read has `error` set; the others are hashed all
 * the same. Gives up, with 1, once it is cancelled; -1 without memory.
 */
int sha256_files(const sha256_kernel *, hashed_file *files, size_t count, files_progress *);

#endif
