/* One block of a tar archive as a reader meets it: fields of text and numbers, whoever wrote them.
 */
#ifndef BUILD_OCI_BLOCK_H
#define BUILD_OCI_BLOCK_H

#include "ustar.h"

#include <stddef.h>
#include <stdint.h>

enum { BLOCK_NAME = 256 };

/* The length of a field of text, which ends at its first NUL, if any. */
size_t block_text(const uint8_t *field, size_t size);

/* A field with a number: octal digits among spaces and NULs, or base-256 where its first bit is
 * set. -1 where it is neither or too large. */
int block_number(const uint8_t *field, size_t size, int64_t *out);

/* Is every byte zero? */
int block_is_zero(const uint8_t *data, size_t size);

/* Does the header's checksum hold, be it counted with bytes or, as some old writers did, with
 * signed characters? */
int block_checksum_holds(const uint8_t *block);

/* Does the header's format have device numbers: ustar or GNU, magic and version as they should be?
 */
int block_has_devices(const uint8_t *block);

/* Is it a GNU header in which Go takes the place of access and change times for a prefix, as it
 * cannot be times but is text? */
int block_prefix_misread(const uint8_t *block);

/* The name in a header, prefix included, into OUT, which holds BLOCK_NAME bytes; its length. */
size_t block_name(const uint8_t *block, uint8_t *out);

/* What a member type is that no layer can hold. */
const char *block_type_name(uint8_t type);

#endif
