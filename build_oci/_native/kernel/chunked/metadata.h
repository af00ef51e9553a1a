/* What the TOC and the tar-split of zstd:chunked say of a member, whoever wrote its headers. The
 * keys and their meaning are those of the format's reference reader. */
#ifndef BUILD_OCI_METADATA_H
#define BUILD_OCI_METADATA_H

#include "text.h"

#define TOC_FIRST_SECOND (-62167219200) /* of the year 0 */
#define TOC_LAST_SECOND 253402300799    /* of the year 9999 */

/* A time that the TOC can tell. All zero: the headers have none, which is 1970 to readers. */
typedef struct toc_time {
    int64_t seconds;
    uint32_t nanoseconds;
} toc_time;

/* What the headers of a member say, but for its names and attributes. A number of 0 is left out. */
typedef struct toc_numbers {
    uint64_t mode, size, uid, gid, dev_major, dev_minor;
    toc_time modified, accessed, changed;
} toc_numbers;

/*
 * An entry of the TOC is put together in this order:
 * - its start with the TYPE, and the name, a JSON string
 * - of a link: the start of the target, and the target, a JSON string
 * - the numbers
 * - the attributes
 * - the keys of the content
 * - the closing brace
 */
void toc_begin(text *, const char *type);
void toc_target(text *);
void toc_put_numbers(text *, const toc_numbers *);
/* An attribute, by its UTF-8 name. The FIRST of them opens their object; toc_xattrs_end() closes
 * it. */
void toc_xattr(text *, const uint8_t *name, size_t name_size, const uint8_t *value,
               size_t value_size, int first);
void toc_xattrs_end(text *);
/* The content, in the blob's bytes [OFFSET, END). */
void toc_content(text *, const uint8_t digest[32], uint64_t offset, uint64_t end);

/* The start of a further chunk, which begins at OFFSET of the blob and PLACE of the content. */
void toc_chunk(text *, const char *name, size_t name_size, uint64_t offset, uint64_t place);
void toc_chunk_keys(text *, uint64_t size, const uint8_t digest[32], int is_hole);

/* A line of the tar-split: bytes of the archive. */
void tar_split_bytes(text *, size_t zeros, const uint8_t *data, size_t size, uint64_t position);
/* A line of the tar-split: the SIZE bytes of content of the member NAME, a JSON string, if it has
 * any. */
void tar_split_content(text *, const char *name, size_t name_size, uint64_t size, uint64_t checksum,
                       uint64_t position);

#endif
