/*
 * Extended attributes, packed into one run of bytes and sorted by name:
 *
 *     | name size: 4 bytes | value size: 4 bytes | name | value | the next attribute ...
 *
 * Two files have the same attributes if their bytes are the same.
 */
#ifndef BUILD_OCI_XATTR_H
#define BUILD_OCI_XATTR_H

#include "arena.h"

#include <stddef.h>
#include <stdint.h>

/* One extended attribute; name and value are not terminated. */
typedef struct xattr {
    const uint8_t *name, *value;
    uint32_t name_size, value_size;
} xattr;

/* Steps through packed attributes from *AT (start with 0). 0 at the end. */
int xattr_next(const uint8_t *packed, size_t size, size_t *at, xattr *out);

/* Packs ITEMS, sorted by name, into ARENA. -1 when memory is exhausted. */
int xattr_pack(arena *, xattr *items, size_t count, const uint8_t **packed, uint32_t *size);

/* Does the attribute tell of the build host and not of the image? Such are left out. */
int xattr_is_of_host(const void *name, size_t size);

/* Does the attribute say which component the file belongs to, or how often that changes? */
int xattr_is_instruction(const xattr *);

#endif
