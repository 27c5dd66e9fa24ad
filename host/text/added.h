/* Added tokens: texts that become a token of their own before anything else looks at the text. */
#ifndef ITERA_TEXT_ADDED_H
#define ITERA_TEXT_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "itera/status.h"
#include "text/regex.h"

enum {
    ITERA_ADDED_SPECIAL = 1,
    ITERA_ADDED_LSTRIP = 2,      /* takes the white space before it along */
    ITERA_ADDED_RSTRIP = 4,      /* and behind it */
    ITERA_ADDED_SINGLE_WORD = 8, /* no match where a word goes on before or behind */
};

struct itera_added_entry {
    size_t offset; /* of its text in the pool */
    uint32_t length, order;
    int32_t id;
    unsigned flags;
};

/* {0} is an empty set. */
struct itera_added {
    struct itera_added_entry *entries; /* sorted by their text, once finished */
    size_t count, capacity;
    char *pool;
    size_t pool_size, pool_capacity;
    uint32_t first[257]; /* the entries that begin with byte b: first[b] to first[b + 1] - 1 */
    bool ordinary;       /* some are not special */
};

/* Of equal texts the first counts. `length` > 0. */
enum itera_status itera_added_insert(struct itera_added *set, const char *text, size_t length,
                                     int32_t id, unsigned flags);
void itera_added_finish(struct itera_added *set);
void itera_added_free(struct itera_added *set);

/* A token, or with id -1 the text before, between or behind tokens, which is not empty. */
typedef enum itera_status itera_added_fn(void *user, const char *text, size_t length, int32_t id);

/* Finds tokens from left to right, the longest at each place; they do not overlap. Without
 * `special`, a special token is text, but still no other token begins inside it. */
enum itera_status itera_added_split(const struct itera_added *set, const char *text, size_t length,
                                    bool special, struct itera_budget *budget, itera_added_fn *fn,
                                    void *user);

#endif
