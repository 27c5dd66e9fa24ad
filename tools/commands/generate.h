/* What the ways of itera generate share. */
#ifndef ITERA_TOOLS_GENERATE_H
#define ITERA_TOOLS_GENERATE_H

#include <stdbool.h>

#include "cli/device_request.h"
#include "cli/options.h"
#include "itera/session.h"

/* What the options say. */
struct generate_request {
    struct device_request device;
    struct itera_load_options load;
    const char *precision;
    const char *prompt, *prompt_file, *prompts, *tokenizer;
    int64_t count, top_k, seed, positions, samples, batch;
    double temperature, top_p, min_p, presence, frequency, repetition;
    bool ignore_eot, no_echo, special;
    struct option_optional json;
};

/* How text `index` of a run chooses its tokens. */
struct itera_sampling generate_sampling(const struct generate_request *request, uint64_t index);
/* The prompt's bytes, or those of the file of prompts, the caller's to free; NULL after an error, which has been printed. */
char *generate_prompt(const struct generate_request *request, size_t *length);

/* generate_many.c: all prompts of a file, or several samples of one. The exit code. */
int generate_many(struct itera_model *model, const struct itera_device *device,
                  const struct generate_request *request);

#endif
