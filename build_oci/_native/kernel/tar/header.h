/*
 * Tar headers of entries: POSIX pax, byte for byte what CPython's tarfile writes with PAX_FORMAT,
 * encoding UTF-8 with surrogateescape, and empty owner names.
 */
#ifndef BUILD_OCI_HEADER_H
#define BUILD_OCI_HEADER_H

#include "name.h"
#include "ustar.h"

typedef struct header_options {
    int has_epoch;
    int64_t epoch;           /* the mtime of every entry, where there is one */
    int directories_at_zero; /* where there is none: is the mtime of every directory 0? */
} header_options;

/* Makes headers, one entry after the other. All zero but for `options`; one a thread. */
typedef struct header_maker {
    const header_options *options;
    name_buffer name, target;
} header_maker;

/* How many bytes the headers of ENTRY take: a multiple of TAR_BLOCK. The same before and after its
 * digest is known. 0 without memory. */
uint64_t header_size(header_maker *, const entry *);

/* Writes them to OUT, which has room for header_size() bytes. A regular file's digest is taken from
 * the entry. -1 without memory. */
int header_write(header_maker *, const entry *, uint8_t *out);

void header_maker_end(header_maker *);

/* The mtime that the headers of ENTRY tell. */
void header_time(const entry *, const header_options *, int64_t *seconds, uint32_t *nanoseconds);

/* Is TEXT what Python's strict decoder takes for UTF-8? */
int header_is_utf8(const uint8_t *text, size_t size);

#endif
