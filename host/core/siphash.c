#include "core/siphash.h"

static uint64_t rotate(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

static uint64_t load(const uint8_t *at)
{
    uint64_t word = 0;
    for (int i = 0; i < 8; i++)
        word |= (uint64_t)at[i] << 8 * i;
    return word;
}

static void store(uint8_t *at, uint64_t word)
{
    for (int i = 0; i < 8; i++)
        at[i] = (uint8_t)(word >> 8 * i);
}

static void rounds(uint64_t v[4], int n)
{
    for (int i = 0; i < n; i++) {
        v[0] += v[1];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[0] = rotate(v[0], 32);
        v[2] += v[3];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] += v[3];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] += v[1];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[2] = rotate(v[2], 32);
    }
}

static void add_word(struct itera_siphash *hash, uint64_t word)
{
    hash->v[3] ^= word;
    rounds(hash->v, 2);
    hash->v[0] ^= word;
}

void itera_siphash_begin(struct itera_siphash *hash, const uint8_t key[ITERA_SIPHASH_KEY])
{
    const uint64_t low = load(key), high = load(key + 8);
    *hash = (struct itera_siphash){
        .v = {low ^ 0x736f6d6570736575u, high ^ 0x646f72616e646f6du ^ 0xee,
              low ^ 0x6c7967656e657261u, high ^ 0x7465646279746573u},
    };
}

void itera_siphash_add(struct itera_siphash *hash, const void *data, size_t bytes)
{
    const uint8_t *at = data;
    while (bytes) {
        if (hash->bytes % 8 == 0 && bytes >= 8) {
            add_word(hash, load(at));
            hash->bytes += 8;
            at += 8;
            bytes -= 8;
            continue;
        }
        hash->waiting |= (uint64_t)*at++ << 8 * (hash->bytes % 8);
        bytes--;
        if (++hash->bytes % 8 == 0) {
            add_word(hash, hash->waiting);
            hash->waiting = 0;
        }
    }
}

void itera_siphash_end(struct itera_siphash *hash, uint8_t out[ITERA_SIPHASH_BYTES])
{
    uint64_t *v = hash->v;
    add_word(hash, hash->waiting | hash->bytes << 56);
    v[2] ^= 0xee;
    rounds(v, 4);
    store(out, v[0] ^ v[1] ^ v[2] ^ v[3]);
    v[1] ^= 0xdd;
    rounds(v, 4);
    store(out + 8, v[0] ^ v[1] ^ v[2] ^ v[3]);
}
