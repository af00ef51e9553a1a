/*
 * The block that every archive is made of, and the fields of a header (POSIX.1-2001, ustar):
 * NAME_AT is where a field begins, NAME_SIZE how many bytes it has.
 *
 *     0    100  108 116 124  136   148      156  157
 *     name mode uid gid size mtime checksum type link
 *     257   263     265   297   329   337   345    500
 *     magic version uname gname major minor prefix
 */
#ifndef BUILD_OCI_USTAR_H
#define BUILD_OCI_USTAR_H

#include <stdint.h>

enum {
    TAR_BLOCK = 512,
    NAME_AT = 0,
    NAME_SIZE = 100,
    MODE_AT = 100,
    UID_AT = 108,
    GID_AT = 116,
    ID_SIZE = 8, /* of the mode, of an owner and of a device number */
    SIZE_AT = 124,
    MTIME_AT = 136,
    LONG_SIZE = 12, /* of a size and of a time */
    CHECKSUM_AT = 148,
    CHECKSUM_SIZE = 8,
    TYPE_AT = 156,
    LINK_AT = 157,
    LINK_SIZE = 100,
    MAGIC_AT = 257, /* the version behind it is written and compared with it */
    MAJOR_AT = 329,
    MINOR_AT = 337,
    PREFIX_AT = 345,
    PREFIX_SIZE = 155,
    /* star: access times stand in the rest of the prefix, and "tar" at the end of the block */
    XSTAR_PREFIX_SIZE = 131,
    XSTAR_MAGIC_AT = 508,
    /* GNU: times stand in the place of the prefix */
    GNU_ATIME_AT = 345,
    GNU_CTIME_AT = 357,
};

/* SIZE in whole blocks. */
static inline uint64_t tar_padded(uint64_t size)
{
    return (size + TAR_BLOCK - 1) & ~(uint64_t)(TAR_BLOCK - 1);
}

#endif
