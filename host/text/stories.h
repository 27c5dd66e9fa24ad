/* builtin:stories, the generator behind the embedded corpus. */
#ifndef ITERA_TEXT_STORIES_H
#define ITERA_TEXT_STORIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "itera/status.h"

/* A growing text. */
struct itera_story_text {
    char *data;
    size_t length, capacity;
};

/* Appends story `index` of a seed: a pure function of (seed, held_out, index). Stories of the two
 * splits come from different random streams. Errors: ITERA_ERR_MEMORY. */
enum itera_status itera_story_append(uint64_t seed, bool held_out, uint64_t index,
                                     struct itera_story_text *text);

#endif
