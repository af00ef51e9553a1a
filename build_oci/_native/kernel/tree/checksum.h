/* The attribute by which a file system tells the digest of a file's content. */
#ifndef BUILD_OCI_CHECKSUM_H
#define BUILD_OCI_CHECKSUM_H

#include <stdint.h>

/* 64 lower-case hexadecimal digits. */
#define CHECKSUM "user.checksum.sha256"

enum { FUSE_MAGIC = 0x65735546 }; /* FUSE_SUPER_MAGIC */

/*
 * The digest that the attribute of the open file FD tells, into OUT. 0 where it has none, and where
 * it is not believed: without EVERYWHERE on another file system than FUSE, because there it stays
 * when the file is written to.
 */
int checksum_of(int fd, int everywhere, uint8_t out[32]);

#endif
