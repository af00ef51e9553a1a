/* The hash of a name below a directory, for tables that many directories share. */
#ifndef BUILD_OCI_NAME_HASH_H
#define BUILD_OCI_NAME_HASH_H

#include <stddef.h>
#include <stdint.h>

/* FNV-1a of the SIZE bytes of NAME; it begins with the address of PARENT, so that one name in many
 * directories does not fall into one slot. */
static inline uint32_t name_hash(const void *parent, const char *name, size_t size)
{
    uint64_t hash = 0xcbf29ce484222325u ^ ((uint64_t)(uintptr_t)parent >> 4) * 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (uint8_t)name[i]) * 0x100000001b3u;
    return (uint32_t)(hash ^ hash >> 32);
}

#endif
