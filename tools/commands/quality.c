#include "commands/quality.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/command.h"
#include "cli/output.h"
#include "cli/progress.h"

enum { COMPARED = 4096, WINDOW = 256 /* positions in all, and from one fresh state */ };

struct progress {
    const char *what;
    bool started;
};

static int on_progress(void *user, uint64_t done, uint64_t total, double nll)
{
    struct progress *progress = user;
    if (!progress->started)
        progress_start(progress->what, "tok", (double)total);
    progress->started = true;
    progress_update((double)done, "nll %.4f", nll);
    return 0;
}

enum itera_status quality_evaluate(struct itera_model *model, const struct itera_dataset *dataset,
                                   int64_t tokens, const char *what,
                                   struct itera_eval_result *result)
{
    struct progress progress = {what, false};
    const struct itera_eval_options options = {
        .tokens = (uint64_t)tokens, .progress = on_progress, .user = &progress};
    enum itera_status status = itera_evaluate(model, dataset, &options, result);
    progress_finish(0);
    return status;
}

static int64_t likeliest(const float *logits, int64_t vocab)
{
    int64_t best = 0;
    for (int64_t i = 1; i < vocab; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

/* Over windows that lie evenly in the text. */
static enum itera_status compare_tokens(struct itera_model *before, struct itera_model *after,
                                        const struct itera_dataset *dataset, struct quality *out)
{
    const struct itera_model_info *info = itera_model_info(before);
    size_t count;
    const int32_t *tokens = itera_dataset_tokens(dataset, &count);
    int64_t window =
        info->max_positions && info->max_positions < WINDOW ? info->max_positions : WINDOW;
    if ((int64_t)count < window)
        window = (int64_t)count;
    int64_t windows = (int64_t)count < COMPARED ? (int64_t)count / window : COMPARED / window;
    const size_t logits = (size_t)(window * info->vocab);
    float *a = malloc(logits * sizeof *a), *b = malloc(logits * sizeof *b);
    enum itera_status status = a && b ? ITERA_OK : ITERA_ERR_MEMORY;
    if (status)
        command_error("no memory to compare the tokens that models choose");
    int64_t same = 0;
    if (!status)
        progress_start("compare", "tok", (double)(window * windows));
    for (int64_t w = 0; w < windows && !status; w++) {
        const int32_t *ids =
            tokens + (windows > 1 ? w * ((int64_t)count - window) / (windows - 1) : 0);
        status = itera_logits(before, ids, 1, window, a);
        if (!status)
            status = itera_logits(after, ids, 1, window, b);
        for (int64_t t = 0; t < window && !status; t++)
            same += likeliest(a + t * info->vocab, info->vocab) ==
                    likeliest(b + t * info->vocab, info->vocab);
        progress_update((double)((w + 1) * window), NULL);
    }
    progress_finish(0);
    free(a);
    free(b);
    out->compared = window * windows;
    out->agreement = out->compared ? (double)same / (double)out->compared : NAN;
    return status;
}

enum itera_status quality_compare(struct itera_model *before, struct itera_model *after,
                                  const struct itera_dataset *dataset, int64_t tokens,
                                  struct quality *out)
{
    enum itera_status status =
        quality_evaluate(before, dataset, tokens, "eval before", &out->before);
    if (!status)
        status = quality_evaluate(after, dataset, tokens, "eval after", &out->after);
    if (!status)
        status = compare_tokens(before, after, dataset, out);
    return status;
}

static void row(struct table *table, const char *name, double before, double after)
{
    table_cell(table, "%s", name);
    table_cell(table, "%.4f", before);
    table_cell(table, "%.4f", after);
    table_cell(table, "%+.2f%%", 100 * (after / before - 1));
}

void quality_print(const struct quality *q, const char *data)
{
    printf("on %s, %llu tokens:\n", data, (unsigned long long)q->before.tokens);
    static const char *const titles[] = {"", "before", "after", "change"};
    struct table *table = table_create(4, titles, "lrrr");
    row(table, "perplexity per token", q->before.perplexity, q->after.perplexity);
    row(table, "perplexity per word", q->before.word_perplexity, q->after.word_perplexity);
    row(table, "bits per byte", q->before.bits_per_byte, q->after.bits_per_byte);
    table_print(table);
    table_destroy(&table);
    printf("the likeliest next token is the same at %.2f%% of %lld positions\n", 100 * q->agreement,
           (long long)q->compared);
}

json_t *quality_result_json(const struct itera_eval_result *r)
{
    return json_pack("{s:I, s:o, s:o, s:o, s:o}", "tokens", (json_int_t)r->tokens, "nll",
                     output_number(r->nll), "perplexity", output_number(r->perplexity),
                     "word_perplexity", output_number(r->word_perplexity), "bits_per_byte",
                     output_number(r->bits_per_byte));
}

json_t *quality_json(const struct quality *q, const char *data)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:I}", "data", output_path(data), "before",
                     quality_result_json(&q->before), "after", quality_result_json(&q->after),
                     "perplexity_ratio", output_number(q->after.perplexity / q->before.perplexity),
                     "agreement", output_number(q->agreement), "compared", (json_int_t)q->compared);
}
