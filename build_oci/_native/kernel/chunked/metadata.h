/* What the TOC and the tar-split of zstd:chunked say of a member; the keys and their meaning are
 * those of the format's reference reader. */
#ifndef BUILD_OCI_METADATA_H
#define BUILD_OCI_METADATA_H

#include "header.h"
#include "text.h"

typedef enum inexpressible {
    EXPRESSIBLE,
    NAME_NOT_UTF8,  /* its own, its target's or an attribute's */
    TIME_TOO_FAR,   /* not in the years 0 to 9999 */
    WITHOUT_MEMORY, /* not asked to the end */
} inexpressible;

/* Can the TOC say what E's headers say? */
inexpressible toc_can_say(const entry *, const header_options *);

/* A comma, then the entry without its closing brace, so that keys of chunks can follow. */
void toc_entry(text *, const entry *, const header_options *);
/* The same for a file with content, in the blob's bytes [OFFSET, END). */
void toc_file(text *, const entry *, const header_options *, uint64_t offset, uint64_t end);
/* The same for a further chunk of the file E, which begins at OFFSET of the blob and PLACE of the
 * content. */
void toc_chunk(text *, const entry *, uint64_t offset, uint64_t place);
void toc_chunk_keys(text *, uint64_t size, const uint8_t digest[32], int is_hole);

/* A line of the tar-split: bytes of the archive. */
void tar_split_bytes(text *, size_t zeros, const uint8_t *data, size_t size, uint64_t position);
/* A line of the tar-split: the content of E, if it has any. */
void tar_split_content(text *, const entry *, uint64_t checksum, uint64_t position);

#endif
