/*
 * Reading the archive of a parent layer, as it comes, in pieces of any size: from bytes nobody
 * vouches for to members.
 *
 * Understood: pax, ustar, GNU and version 7 archives. What is not understood is refused, never
 * skipped. Nothing is allocated because a number in the archive asks for it: only what has really
 * been read is kept. One thread at a time.
 */
#ifndef BUILD_OCI_READER_H
#define BUILD_OCI_READER_H

#include "member.h"
#include "sha256.h"

typedef struct tar_reader tar_reader;

/*
 * At most about MEMORY_LIMIT bytes are held for members (up to 64 MiB more while one is read).
 * Every regular file is hashed, and a checksum record that says otherwise is refused; with TRUST a
 * record counts as the digest instead. NULL without memory.
 */
tar_reader *tar_reader_new(const sha256_kernel *, size_t memory_limit, int trust);

/* The next bytes of the archive. -1 when they are refused, and again at every later call; see
 * tar_reader_error(). */
int tar_reader_feed(tar_reader *, const uint8_t *data, size_t size);

/*
 * Instead of feeding: reads the SIZE bytes of an archive that start at START in the file FD, from
 * *AT of them on, and seeks over contents whose digest a record tells. For one that nothing else of
 * is wanted than its members (`trust`, no digest of the archive or its headers). Reads at most MOST
 * times and moves *AT. -1 when the archive is refused; 1 with *ERROR set to an errno when it cannot
 * be read, or to 0 where the file has ended.
 */
int tar_reader_seek_through(tar_reader *, int fd, uint64_t start, uint64_t size, uint64_t *at,
                            size_t most, int *error);

/* There are no more bytes. -1 when the archive is refused or ends too early. */
int tar_reader_finish(tar_reader *);

/* What has been read, in the order of the archive; whiteouts are members like others. Complete
 * after tar_reader_finish(), and valid, with all it points to, until tar_reader_free(). */
const member *tar_reader_members(const tar_reader *, size_t *count);

/* Bytes held for the members so far; see tar_reader_count_whole_names(). */
size_t tar_reader_held(const tar_reader *);

/* After a -1: "at byte OFFSET: 'NAME': WHAT" in ASCII, the name escaped and only where it is known;
 * or NULL when memory is exhausted. */
const char *tar_reader_error(const tar_reader *);

/* Before the first byte: computes the SHA-256 of the whole archive as well, which costs little
 * beside that of the contents. */
void tar_reader_digest_archive(tar_reader *);

/* That digest, of all bytes so far. */
void tar_reader_archive_digest(const tar_reader *, uint8_t digest[SHA256_DIGEST]);

/* Before the first byte: computes the SHA-256 of the headers as well, the archive's recipe
 * (layer_recipe.h). */
void tar_reader_digest_headers(tar_reader *);

/*
 * That digest, after tar_reader_finish(): of all header blocks and extended headers with their
 * padding. 0 where the archive has none, because it is padded with anything but zeros or does not
 * end with two blocks of zeros: such a one is no archive of ours.
 */
int tar_reader_headers_digest(const tar_reader *, uint8_t digest[SHA256_DIGEST]);

/* Before the first byte: keeps attributes of any size, see records.h. */
void tar_reader_keep_whole(tar_reader *);

/* Before the first byte: each name counts with all of its bytes, as is right for one who makes them
 * whole. */
void tar_reader_count_whole_names(tar_reader *);

/* Before the first byte: no content follows any header, and nothing the last one: what is fed is a
 * header list (oci/recorded.py). Records are believed. */
void tar_reader_headers_alone(tar_reader *);

/* Before the first byte: keeps only the last members, about a MiB of them, for who wants digests
 * alone. */
void tar_reader_forget(tar_reader *);

void tar_reader_free(tar_reader *);

#endif
