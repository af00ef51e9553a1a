/*
 * From entries to the bytes of a tar archive, segment by segment, in any order and from many
 * threads.
 *
 * The sizes of all headers are known before a byte of content is read, so that a segment is filled
 * in one go: content is read to where it belongs, hashed there, and its header written in front of
 * it. A file larger than a segment is hashed first (plan_digest) and then cut into slices.
 *
 * What is packed is what was hashed. A large file is read twice in any case, and every file where
 * digests were computed before, for the diff or for a previous image. A write through a mapping
 * between the two moves neither size nor time: so each reading takes a fingerprint of every slice,
 * and the second of the two compares (tree_same_slice). Slices stay independent of each other and
 * of the digest, and the cost is about a tenth of hashing twice.
 * Digests that are believed (ENTRY_BELIEVED) are not held against the content.
 */
#ifndef BUILD_OCI_PACK_H
#define BUILD_OCI_PACK_H

#include "content.h"
#include "header.h"
#include "partition.h"
#include "sha256.h"

#include <stdatomic.h>

typedef enum segment_kind {
    SEGMENT_BATCH,  /* whole members */
    SEGMENT_HEADER, /* the headers of one large file: needs its digest */
    SEGMENT_SLICE,  /* a piece of its content, with the padding behind the last one */
    SEGMENT_END,    /* the end of the archive */
} segment_kind;

typedef struct segment {
    uint64_t size; /* bytes in the archive */
    /* of a slice: where in the file it starts; of a large file's headers: how many bytes are to
     * be hashed before */
    uint64_t offset;
    size_t first;   /* member */
    uint32_t count; /* of members */
    segment_kind kind;
} segment;

typedef struct plan {
    tree *tree;
    header_options options;
    const sha256_kernel *kernel;
    entry *const *members; /* of the layer, in tar order; they belong to the partition */
    size_t members_count;
    segment *segments;
    size_t segments_count, segments_capacity;
    uint64_t archive_size;
    uint64_t files, bytes; /* regular files with content of their own, and that content */
    atomic_int cancelled;
} plan;

/*
 * A plan for LAYER of a partition, which must live as long, cut into segments of about SEGMENT_SIZE
 * bytes. With `directories_last`, the layers below the last have directories of time 0 unless
 * OPTIONS have an epoch. NULL without memory.
 */
plan *plan_new(const partition *, size_t layer, const header_options *, const sha256_kernel *,
               uint64_t segment_size);

/* Hashes the large files that COUNT segments of the kind SEGMENT_HEADER stand for, side by side. -1
 * with OUT filled. */
int plan_digest(plan *, const size_t *indexes, size_t count, problem *out);

/* Writes segment INDEX, whose size says how much room INTO has. -1 with OUT filled. */
int plan_fill(plan *, size_t index, uint8_t *into, problem *out);

void plan_free(plan *);

#endif
