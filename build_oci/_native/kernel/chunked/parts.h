/*
 * A block of an archive as zstd:chunked sees it: headers, contents, and the chunks that each
 * content is cut into.
 *
 *     block  | pad | headers | content | pad + headers | content ...         | pad + headers | content:
 *     frames |       0       |    1    |       2       | 3: chunk | 4: chunk |       5       |  6
 *     items  |         item 0          |             item 1                  |      item 2, begun
 *
 * A frame holds headers (with the padding of the content before) or one chunk, so every chunk can
 * be decompressed alone. A large file stands in several blocks: only its pieces in the first and
 * last one share a block with other members. Where a piece does not hold the whole file, its first
 * and last chunk may go on beyond the block; the caller puts them together, block after block.
 */
#ifndef BUILD_OCI_PARTS_H
#define BUILD_OCI_PARTS_H

#include "pack.h"
#include "text.h"

#define NO_PIECE SIZE_MAX

/* As python-zstandard wants its segments. */
typedef struct frame {
    uint64_t start, size; /* in the block */
} frame;

typedef struct chunk {
    size_t frame;
    /* not where it may go on beyond the block, and not where it is a whole file */
    int is_hole, is_digested;
    uint8_t digest[32];
} chunk;

/* What a block holds of one file. */
typedef struct piece {
    size_t member;
    uint64_t start, size; /* in the block */
    uint64_t offset;      /* in the file */
    uint64_t checksum;    /* CRC-64 */
    size_t first, count;  /* chunks */
    int starts_chunk;     /* else the first chunk goes on from the piece before */
    int is_last;          /* the file ends with it */
} piece;

/* A member's headers, its content, or both; or the end of the archive, whose member is the number
 * of members. */
typedef struct item {
    size_t member;
    uint64_t headers, headers_size; /* 0 bytes: they stand in the block before */
    size_t piece;                   /* NO_PIECE where there is none */
} item;

typedef struct parts {
    frame *frames;
    chunk *chunks;
    piece *pieces;
    item *items;
    size_t frames_count, chunks_count, pieces_count, items_count;
    size_t frames_capacity, chunks_capacity, pieces_capacity, items_capacity;
} parts;

/*
 * Finds the parts of the block DATA, which holds COUNT segments of the plan from FIRST on, filled.
 * Reads up to 1 KiB of a file before and behind a piece of it. -1 with OUT_PROBLEM filled. In any
 * case parts_free() is due.
 */
int parts_find(parts *, plan *, size_t first, size_t count, const uint8_t *data, problem *out);
void parts_free(parts *);

/* Is all of the file in the block? */
int is_whole(const piece *);

/*
 * The TOC's entries for the members that end in the block, but for pieces that are not whole, each
 * with a comma in front. PACKED are the sizes of the frames when compressed, the first of which
 * begins at OFFSET of the blob.
 */
void parts_toc(const parts *, const plan *, const uint64_t *packed, uint64_t offset, text *out);

/* The lines of the tar-split for the same members, and for the headers of those that do not end in
 * it. */
void parts_tar_split(const parts *, const plan *, const uint8_t *data, text *out);

#endif
