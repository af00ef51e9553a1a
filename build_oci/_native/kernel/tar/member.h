/* One member of a parent layer's archive, as the tar reader hands it to the lower table. */
#ifndef BUILD_OCI_MEMBER_H
#define BUILD_OCI_MEMBER_H

#include <stddef.h>
#include <stdint.h>

enum {
    MEMBER_DIGEST_KNOWN = 1, /* of a regular file: `digest` holds the SHA-256 of its content */
    /* a further name of `target`; its metadata is what the link's own header says */
    MEMBER_HARD_LINK = 2,
    /* clients may read it otherwise: it never counts as equal to an entry of the tree (see
     * reader_member.c) */
    MEMBER_AMBIGUOUS = 4,
    /* the layer's times tell that the writer rounded the mtime to a double */
    MEMBER_FLOAT_TIME = 8,
    MEMBER_XATTR_NEWLINE = 16, /* the value of one of its attributes holds a newline */
};

typedef struct member {
    /* the end of the name, from byte `shared` on (see member_name.h); the name is normalised: no
     * slash at either end, no "." or empty component; the root has none */
    const char *tail;
    /* NUL-terminated: of a symbolic link, as it stands; of a hard link, normalised; else NULL */
    const char *target;
    /* packed and sorted as in tree.h, and, where they are large, condensed: see records.h; NULL
     * where there are none */
    const uint8_t *xattrs;
    uint64_t size;   /* of a regular file */
    uint64_t offset; /* in the archive, of the content, or of where it would begin */
    uint64_t rdev;   /* of a device, as makedev() has it */
    int64_t mtime;   /* whole seconds, rounded down */
    uint32_t mtime_ns;
    uint32_t mode, uid, gid; /* mode with the type bits (S_IFREG for a hard link) */
    uint32_t xattrs_size;
    uint32_t name_size, target_size;
    uint16_t flags, shared;
    uint8_t digest[32];
} member;

/* Members that were read so far; `ended`: there are no more. Valid until the reader reads on. */
typedef struct member_view {
    const member *members;
    size_t count;
    int ended;
} member_view;

#endif
