/*
 * What the two halves of the tar reader share: reader.c, the state machine that takes an archive in
 * pieces of any size, and reader_member.c, which makes a member of a header and what stood before.
 */
#ifndef BUILD_OCI_READER_STATE_H
#define BUILD_OCI_READER_STATE_H

#include "reader.h"

#include "block.h"
#include "member_name.h"
#include "records.h"

enum { NAME_LIMIT = 64 * 1024 };

/* What may stand in front of a member. */
typedef enum extension_kind {
    LONG_NAME,
    LONG_TARGET,
    RECORDS,
    GLOBAL_RECORDS,
    EXTENSION_KINDS
} extension_kind;

typedef struct extension {
    uint8_t *text;
    size_t size, capacity;
    int pending; /* waits for its member */
} extension;

/*
 * The states. Each takes in bytes until it is complete. Then header(), end_body() or
 * tar_reader_feed() chooses the next one.
 *
 *                 ┌──────────────────────────────────────────────────┐
 *                 ▼                                                  │
 *     start ──► HEADER ── L, K, x, g ──► EXTENSION ──► GAP ──────────┤
 *                 │                                                  │
 *                 ├── another type ────► CONTENT ────► PADDING ──────┘
 *                 │
 *                 └── a block of zeros ► END
 *
 * GAP pads an extension to whole blocks, PADDING a content. A state that would take no byte is
 * left out. END takes only zeros. An archive may end in HEADER (before a header's first byte),
 * PADDING or END, if no extension waits for its member.
 */
typedef enum state { HEADER, EXTENSION, GAP, CONTENT, PADDING, END } state;

struct tar_reader {
    const sha256_kernel *kernel;
    size_t memory_limit;
    arena arena;
    member *members;
    size_t count, capacity;
    state state;
    uint64_t offset; /* bytes taken in */
    uint64_t where;  /* of the header at hand */
    uint64_t left;   /* of the content or the extension */
    uint64_t zeros;  /* at the end */
    size_t padding, filled;
    uint8_t block[TAR_BLOCK];
    extension extensions[EXTENSION_KINDS], *extension;
    /* of the member; of a global header, which may hold none that count */
    records records, globals;
    span name; /* of the member at hand, as it stands in the archive */
    /* the same normalised, or of the member before; and room for the next */
    passing_name last, next;
    size_t shared; /* bytes of names that are held only once */
    int whole_names;
    uint8_t joined[BLOCK_NAME];
    size_t fine_times, float_times; /* with more digits than a double holds; with as many */
    int trust;                      /* believe checksum records */
    int whole;                      /* large attributes are wanted */
    int hashing;                    /* the content at hand */
    int claims;                     /* how many records say what its digest is */
    uint8_t claimed[2][SHA256_DIGEST];
    sha256_context context;
    int digesting; /* the whole archive */
    sha256_context archive;
    int forgetting; /* members that have been read */
    int alone;      /* headers, without contents */
    int digesting_headers;
    int unlike_ours; /* padding that is not zero */
    sha256_context headers;
    int failed;
    char error[640];
};

/* Memory is exhausted: fails without an error. Returns -1. */
int tar_reader_exhausted(tar_reader *);

/* Refuses the archive with a message on the member at hand. Returns -1. */
__attribute__((format(printf, 2, 3))) int tar_reader_refuse(tar_reader *, const char *format, ...);

/* The number WHAT of the header at hand, at most MOST, from its field of SIZE bytes at AT. */
int tar_reader_number(tar_reader *, size_t at, size_t size, uint64_t most, const char *what,
                      uint64_t *out);

/* Makes a member of the header at hand and of what stood before it; its content follows. */
int tar_reader_begin_member(tar_reader *, uint64_t *content_size);

/* The content of a regular file has been hashed. */
int tar_reader_end_digest(tar_reader *);

/* Did the writer keep times as doubles? That is known only when all have been seen. */
void tar_reader_mark_float_times(tar_reader *);

#endif
