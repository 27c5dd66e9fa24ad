/* How well a model that was made from another one still does: both on the same held-out text. */
#ifndef ITERA_TOOLS_QUALITY_H
#define ITERA_TOOLS_QUALITY_H

#include <jansson.h>

#include "itera/eval.h"

struct quality {
    struct itera_eval_result before, after;
    int64_t compared; /* positions at which the likeliest next tokens were compared */
    double agreement; /* share of them where both models have the same */
};

/* Evaluates one model on about `tokens` tokens of the text (0: all), with a progress bar named
 * `what`. */
enum itera_status quality_evaluate(struct itera_model *model, const struct itera_dataset *dataset,
                                   int64_t tokens, const char *what,
                                   struct itera_eval_result *result);
/* {"tokens", "nll", "perplexity", "word_perplexity", "bits_per_byte"} */
json_t *quality_result_json(const struct itera_eval_result *result);
/* Evaluates both models on about `tokens` tokens of the text (0: all), with progress. dataset was
 * made with the tokenizer of both. */
enum itera_status quality_compare(struct itera_model *before, struct itera_model *after,
                                  const struct itera_dataset *dataset, int64_t tokens,
                                  struct quality *out);
/* A table: before, after, and the change. `data` names the text. */
void quality_print(const struct quality *quality, const char *data);
/* {"data", "before": {"tokens", "nll", "perplexity", "word_perplexity", "bits_per_byte"},
 *  "after": ..., "perplexity_ratio", "agreement", "compared"} */
json_t *quality_json(const struct quality *quality, const char *data);

#endif
