/*
 * A block of an archive as zstd:chunked sees it: headers, contents, and the chunks that each
 * content is cut into.
 *
 *     block  | pad | headers | content | pad + headers | content ...         | pad + headers | cont
 *     frames |       0       |    1    |       2       | 3: chunk | 4: chunk |       5       |  6
 *     items  |         item 0          |             item 1                  |      item 2, begun
 *
 * A frame holds headers (with the padding of the content before) or one chunk, so every chunk can
 * be decompressed alone. A large file stands in several blocks: only its pieces in the first and
 * last one share a block with other members. Where a piece does not hold the whole file, its first
 * and last chunk may go on beyond the block; the caller puts them together, block after block.
 *
 * Who knows the members adds items and pieces (plan_parts.h, splitter.h); then parts_cut() does
 * the rest. TOC and tar-split follow from that.
 */
#ifndef BUILD_OCI_PARTS_H
#define BUILD_OCI_PARTS_H

#include "sha256.h"
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

typedef enum item_kind {
    ITEM_EMPTY,   /* a member without content */
    ITEM_CONTENT, /* a member with content, or only its headers, or only a piece of its content */
    ITEM_BYTES,   /* bytes that belong to no member: the end of the archive */
} item_kind;

/* A member's headers, its content, or both; or bytes that are neither. */
typedef struct item {
    item_kind kind;
    uint64_t position; /* of its first line in the tar-split; that of its content is one further */
    uint64_t headers, headers_size; /* 0 bytes: they stand in the block before */
    /* zeros that the tar-split has in front of the headers and the frame before them */
    size_t padding;
    size_t piece;  /* NO_PIECE where there is none */
    uint64_t size; /* of the content */
    /* the start of its TOC entry, up to the keys of its content; empty where the headers stand in a
     * block before */
    text_span entry;
    text_span name; /* as a JSON string */
} item;

/* What a block holds of one file. */
typedef struct piece {
    size_t item;
    uint64_t start, size; /* in the block */
    uint64_t offset;      /* in the file */
    uint64_t checksum;    /* CRC-64 */
    size_t first, count;  /* chunks */
    int starts_chunk;     /* else the first chunk goes on from the piece before */
    int is_last;          /* the file ends with it */
    int is_digested;      /* `digest`, of the whole file, was known before */
    uint8_t digest[32];   /* of the whole file, if this is all of it */
} piece;

typedef struct parts {
    frame *frames;
    chunk *chunks;
    piece *pieces;
    item *items;
    size_t frames_count, chunks_count, pieces_count, items_count;
    size_t frames_capacity, chunks_capacity, pieces_capacity, items_capacity;
    text texts;
} parts;

/* The new item or piece, all zero, at the end; NULL without memory. Valid until the next one. */
item *parts_add_item(parts *);
piece *parts_add_piece(parts *);
void parts_free(parts *);

/* Is all of the file in the block? */
int piece_is_whole(const piece *);

/* What surrounds a piece in its file, as far as it matters for the cuts: up to HOLE_MIN bytes
 * (rolling.h) on either side. -1 ends the work. */
typedef int read_around(void *of, const piece *, uint8_t *before, size_t *before_size,
                        uint8_t *after, size_t *after_size);

enum { CUT_WITHOUT_MEMORY = -1, CUT_UNREADABLE = -2 };

/* Finds frames, chunks and digests of the block DATA, whose items and pieces have been added. 0, or
 * one of the above. */
int parts_cut(parts *, const sha256_kernel *, const uint8_t *data, uint64_t size, read_around *,
              void *of);

/*
 * The TOC's entries for the members that end in the block, but for pieces that are not whole, each
 * with a comma in front. PACKED are the sizes of the frames when compressed, the first of which
 * begins at OFFSET of the blob.
 */
void parts_toc(const parts *, const uint64_t *packed, uint64_t offset, text *out);

/* The lines of the tar-split for the same members, and for the headers of those that do not end in
 * it. */
void parts_tar_split(const parts *, const uint8_t *data, text *out);

/* The item whose headers are in the block and whose content ends in another, or NULL. */
const item *parts_opened(const parts *);

#endif
