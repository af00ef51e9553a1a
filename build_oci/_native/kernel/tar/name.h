/*
 * The names of entries in an archive, made one after the other.
 *
 * A name_buffer keeps the path of the directory that it made a name in last. In tar order the next
 * entry lies in that directory, in one that was just named in it, or in one of those above, which
 * are beginnings of what the buffer holds. So a name costs the same at any depth, but for what its
 * bytes cost; in any other order it costs a step for each directory above it.
 */
#ifndef BUILD_OCI_NAME_H
#define BUILD_OCI_NAME_H

#include "tree.h"

typedef struct name_buffer {
    const entry *directory; /* NULL: none yet */
    uint8_t *text;          /* "./" and the path of `directory` with a closing slash */
    size_t size, capacity;  /* `size` ends at that slash; a name may follow */
} name_buffer;

/*
 * The archive's name for an entry: "./" for the root, "./name" in the root, "dir/name" below,
 * directories with a closing slash. Valid until the next call. NULL without memory.
 */
const uint8_t *name_make(name_buffer *, const entry *, size_t *size);

void name_end(name_buffer *);

#endif
