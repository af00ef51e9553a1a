/* The records of a pax extended header ("LENGTH KEY=VALUE\n"), and the numbers in them. */
#ifndef BUILD_OCI_RECORDS_H
#define BUILD_OCI_RECORDS_H

#include "arena.h"
#include "member.h"
#include "sha256.h"
#include "xattr.h"

#include <stddef.h>
#include <stdint.h>

/* Bytes that belong to somebody else. No `at`: there are none, which is not the same as an empty
 * span. */
typedef struct span {
    const uint8_t *at;
    size_t size;
} span;

typedef enum record_key {
    RECORD_PATH,
    RECORD_LINKPATH,
    RECORD_UID,
    RECORD_GID,
    RECORD_SIZE,
    RECORD_MTIME,
    RECORD_DIGEST,
    RECORD_OLDER_DIGEST,
    RECORD_KEYS,
} record_key;

typedef struct record_xattr {
    xattr item;
    size_t rank; /* of two attributes with one name, the one of higher rank counts */
} record_xattr;

/* All zero is a valid empty set. */
typedef struct records {
    span values[RECORD_KEYS]; /* an empty one takes back what stood before */
    record_xattr *xattrs;     /* without those of the host */
    size_t xattrs_count, xattrs_capacity;
    /* clients may see another set of attributes, or what an attribute makes an overlay hide */
    int ambiguous;
    int newline;   /* a value holds one; known once they are packed */
    int redirects; /* an attribute makes an overlay show other files in this one's place */
} records;

/*
 * Adds the records in TEXT, which they go on to point into, and which is written to where values
 * are decoded. -1 with PROBLEM set to static text, or to NULL without memory.
 */
int records_parse(records *, uint8_t *text, size_t size, const char **problem);

/* Packs the attributes as xattr_pack() does; of each name the last SCHILY one, else the last
 * LIBARCHIVE one. -1 without memory. */
int records_pack(records *, arena *, const uint8_t **packed, uint32_t *size);

/*
 * What stands for SIZE bytes of packed attributes where only equality matters: themselves, or,
 * where they are large, one attribute without a name whose value is their digest and size. Either
 * is packed; OUT holds the latter. The new size.
 */
enum { XATTRS_KEPT = 1024, XATTRS_CONDENSED = 8 + SHA256_DIGEST + 4 };
uint32_t records_condense(const sha256_kernel *, const uint8_t **packed, uint32_t size,
                          uint8_t out[XATTRS_CONDENSED]);

/* Does M, whose own may be condensed, have just the SIZE bytes of packed attributes? */
int records_match(const sha256_kernel *, const member *m, const uint8_t *packed, uint32_t size);

/* Packs the attributes as records_pack() does, condensed. */
int records_pack_condensed(records *, const sha256_kernel *, arena *, const uint8_t **packed,
                           uint32_t *size);

/* Empties the set but keeps its memory. */
void records_clear(records *);
void records_free(records *);

/* TEXT as a decimal number of at most MOST. -1 where it is none. */
int records_decimal(span text, uint64_t most, uint64_t *out);

/* TEXT as seconds with an optional sign and fraction; digits behind the ninth are cut off. -1 where
 * it is none. */
int records_time(span text, int64_t *seconds, uint32_t *nanoseconds);

#endif
