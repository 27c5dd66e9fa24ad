/* SipHash-2-4 with 128 bits (Aumasson and Bernstein 2012): a checksum that only those who have the
 * key can make. Not for passwords or signatures. */
#ifndef ITERA_CORE_SIPHASH_H
#define ITERA_CORE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

enum { ITERA_SIPHASH_KEY = 16, ITERA_SIPHASH_BYTES = 16 };

struct itera_siphash {
    uint64_t v[4];
    uint64_t waiting; /* bytes that are not a word yet, the first lowest */
    uint64_t bytes;   /* added so far */
};

void itera_siphash_begin(struct itera_siphash *hash, const uint8_t key[ITERA_SIPHASH_KEY]);
void itera_siphash_add(struct itera_siphash *hash, const void *data, size_t bytes);
void itera_siphash_end(struct itera_siphash *hash, uint8_t out[ITERA_SIPHASH_BYTES]);

#endif
