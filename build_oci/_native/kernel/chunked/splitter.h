/*
 * An archive of any builder, as it streams by, cut into the blocks that zstd:chunked packs.
 *
 *     archive  headers | content | pad headers | pad headers | content ............ | pad headers
 *     blocks   |-------------------- first ------------------|- second: LIMIT -|- third ...
 *
 * A block ends between two members, or within the content of a file that does not fit into one.
 * Headers are never cut, and the padding of a content belongs to the headers that follow. Where
 * blocks end follows from the archive and from LIMIT alone, never from how the archive was cut in
 * transit. Within a content a block is full only once the next bytes are there as well, since where
 * chunks end depends on them; so a little of the next block is taken in with it.
 *
 * The caller keeps the bytes; this keeps the headers at hand, and of all names a hash each.
 */
#ifndef BUILD_OCI_SPLITTER_H
#define BUILD_OCI_SPLITTER_H

#include "member_header.h"
#include "parts.h"
#include "path_set.h"
#include "rolling.h"

typedef enum splitter_state {
    SPLIT_HEADER,    /* a block of headers, or of the end */
    SPLIT_EXTENSION, /* the content of an extended header, padded */
    SPLIT_CONTENT,
    SPLIT_PADDING, /* of a content */
    SPLIT_END,     /* whatever follows the end of the archive */
} splitter_state;

typedef struct splitter {
    uint64_t limit; /* of a block, in bytes */
    parts block;    /* what is known of the block at hand */
    uint64_t cut;   /* where the block at hand ends: at LIMIT, but behind its first headers */
    uint64_t size;  /* bytes of it so far, and of what follows it */
    uint64_t full;  /* its size, once it is complete; else 0 */
    uint64_t run;   /* where the headers at hand begin in it */
    splitter_state state;
    uint64_t left; /* bytes of the extension, content or padding */
    uint64_t offset,
        content; /* of the content: where the piece at hand begins, and how much it is in all */
    int zeros;   /* blocks of the archive's end */
    uint8_t *headers; /* from the first extension's on */
    size_t headers_size, headers_capacity, header_filled;
    member_header member;
    int is_waiting; /* a member whose block has to be taken first */
    uint64_t position;
    path_set paths;
    uint64_t end_line;        /* bytes of the end's line at hand, of the tar-split */
    int has_end;              /* has a line of the end come already? */
    uint8_t before[HOLE_MIN]; /* the end of the content in the block that was taken */
    size_t before_size;
    const char *problem; /* why the archive cannot be told */
    int without_memory;
} splitter;

/* What surrounds the content that a block cuts off, for parts_cut(). */
typedef struct surroundings {
    uint8_t before[HOLE_MIN], after[HOLE_MIN];
    size_t before_size, after_size;
} surroundings;

void splitter_begin(splitter *, uint64_t limit);

/* Takes in some of the SIZE bytes at DATA: all, or up to
 * where a block is full, or a problem is found. Returns how many. */
size_t splitter_feed(splitter *, const uint8_t *data, size_t size);

/* There are no more bytes. What is left is one block, if anything is. */
void splitter_finish(splitter *);

/*
 * The block that is full. DATA are the bytes that were taken in since the last one, from which the
 * first `full` are the block; what follows them is kept for the next one by the caller.
 */
void splitter_take(splitter *, const uint8_t *data, parts *out, surroundings *around);

/* A read_around for parts_cut(), of a `surroundings`. */
int splitter_read_surroundings(void *of, const piece *, uint8_t *before, size_t *before_size,
                               uint8_t *after, size_t *after_size);

void splitter_free(splitter *);

#endif
