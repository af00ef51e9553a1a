/*
 * CRC-64 with the polynomial of ISO 3309 (x^64 + x^4 + x^3 + x + 1), reflected, as tar-split keeps
 * it of every content.
 *
 * Both ends are inverted: crc64_update(0, data) is the checksum of DATA, and the result goes into
 * the next call for the data that follows.
 */
#ifndef BUILD_OCI_CRC64_H
#define BUILD_OCI_CRC64_H

#include <stddef.h>
#include <stdint.h>

uint64_t crc64_update(uint64_t crc, const uint8_t *data, size_t size);

/* The checksum of A followed by B, from CRC_A of A and CRC_B of B, which has SIZE_B bytes. */
uint64_t crc64_combine(uint64_t crc_a, uint64_t crc_b, uint64_t size_b);

#endif
