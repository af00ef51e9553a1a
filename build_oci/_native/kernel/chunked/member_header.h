/*
 * The headers of one member of an archive, from whichever writer, as zstd:chunked's readers take
 * them: all use Go's archive/tar, as tar-split carries it.
 *
 * They hold the TOC against the headers in the tar-split, member by member, and refuse the whole
 * layer where one differs. So this reads what they read, and what it is not sure of it refuses.
 */
#ifndef BUILD_OCI_MEMBER_HEADER_H
#define BUILD_OCI_MEMBER_HEADER_H

#include "metadata.h"
#include "ustar.h"

typedef struct member_header {
    const char *type;
    uint64_t content; /* bytes of content that follow */
    text_span entry;  /* in the text: as item.entry and item.name */
    text_span name;
    uint64_t path; /* path_hash() of the name */
} member_header;

enum { EXTENSION_MOST = 1 << 20 };

/* Is it the header of an extension, whose content belongs to the member that follows? */
int member_header_is_extension(uint8_t type);

/* The bytes of content behind a header of an extension. NULL, or why no reader takes it. */
const char *member_header_extension_size(const uint8_t block[TAR_BLOCK], uint64_t *size);

/*
 * The headers DATA, from the first extension's to the member's own block, all of them whole blocks.
 * Puts the start of the TOC's entry at the end of T. NULL, or why the TOC cannot tell the member.
 */
const char *member_header_read(const uint8_t *data, size_t size, text *t, member_header *out);

#endif
