/*
 * Tar headers of entries: POSIX pax, byte for byte what CPython's tarfile writes with PAX_FORMAT,
 * encoding UTF-8 with surrogateescape, and empty owner names.
 */
#ifndef BUILD_OCI_HEADER_H
#define BUILD_OCI_HEADER_H

#include "tree.h"

enum { TAR_BLOCK = 512 };

typedef struct header_options {
    int has_epoch;
    int64_t epoch;           /* the mtime of every entry, where there is one */
    int directories_at_zero; /* where there is none: is the mtime of every directory 0? */
} header_options;

/* How many bytes the headers of ENTRY take: a multiple of TAR_BLOCK. The same before and after its
 * digest is known. 0 without memory. */
uint64_t header_size(const entry *, const header_options *);

/* Writes them to OUT, which has room for header_size() bytes. A regular file's digest is taken from
 * the entry. -1 without memory. */
int header_write(const entry *, const header_options *, uint8_t *out);

/* The mtime that the headers of ENTRY tell. */
void header_time(const entry *, const header_options *, int64_t *seconds, uint32_t *nanoseconds);

/* Does ENTRY carry content in the archive? */
int has_content(const entry *);

/* The size of the content, padded to whole blocks. */
uint64_t padded(uint64_t size);

/*
 * The archive's name for ENTRY: "./" for the root, "./name" in the root, "dir/name" below,
 * directories with a closing slash. OUT has room for 3 bytes more than entry_path() says. Returns
 * its length.
 */
size_t archive_name(const entry *, uint8_t *out);

/* Is TEXT what Python's strict decoder takes for UTF-8? */
int is_utf8(const uint8_t *text, size_t size);

#endif
