/* itera ledger: the size of models, their quality on a text, their speed and their energy. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/model_file.h"
#include "cli/progress.h"
#include "commands/ledger.h"
#include "itera/describe.h"
#include "itera/eval.h"
#include "itera/session.h"

static enum itera_status load(struct ledger *l, struct ledger_entry *e,
                              const struct itera_load_options *options)
{
    struct itera_description *d = NULL;
    enum itera_status status = itera_model_load_as(l->device, e->path, options, &e->model);
    if (!status)
        status = itera_describe_model(e->model, &d);
    if (!status) {
        e->file_bytes = model_file_bytes(e->path);
        e->parameters = d->parameters;
        e->bytes = d->bytes;
        e->flops = d->flops_per_token;
        memcpy(e->dtype_bytes, d->dtype_bytes, sizeof e->dtype_bytes);
    }
    itera_description_destroy(&d);
    return status;
}

static int on_eval(void *user, uint64_t done, uint64_t total, double nll)
{
    const struct ledger_entry *e = user;
    if (done == total || done < 2)
        return 0;
    progress_set_total((double)total);
    progress_update((double)done, "%.40s nll %.4f", e->name, nll);
    return 0;
}

static enum itera_status evaluate(struct ledger *l, struct ledger_entry *e,
                                  const struct itera_corpus *corpus)
{
    const struct itera_tokenizer *tokenizer = itera_model_tokenizer(e->model);
    struct itera_dataset *dataset = NULL;
    struct itera_eval_result r;
    int64_t limit = itera_model_info(e->model)->max_positions;
    int64_t window = limit && l->window > limit ? limit : l->window;
    const struct itera_eval_options options = {
        .window = (int32_t)window, .tokens = (uint64_t)l->tokens, .progress = on_eval, .user = e};
    if (!tokenizer) {
        command_error("%s has no tokenizer, so that it cannot read %s", e->path, l->data);
        return ITERA_ERR_ARGUMENT;
    }
    enum itera_status status = itera_dataset_create(corpus, tokenizer, &dataset);
    if (!status) {
        size_t count;
        itera_dataset_tokens(dataset, &count);
        progress_start("eval", "tok", (double)count);
        status = itera_evaluate(e->model, dataset, &options, &r);
        progress_finish(0);
        e->unknown = itera_dataset_unknown(dataset);
    }
    if (!status) {
        e->word_perplexity = r.word_perplexity;
        e->bits_per_byte = r.bits_per_byte;
        progress_line("%s: %.4f bits per byte", e->name, r.bits_per_byte);
    }
    itera_dataset_destroy(&dataset);
    return status;
}

static void keep_row(struct ledger_entry *e, const struct itera_bench_row *row)
{
    double rate = (double)row->tokens / row->p50;
    if (!strcmp(row->phase, "prefill"))
        e->prefill[e->n_prefill++] = rate;
    else
        e->decode[e->n_decode++] = rate;
    e->peak_memory = row->peak_bytes > e->peak_memory ? row->peak_bytes : e->peak_memory;
}

static int on_progress(void *user, double done, const struct itera_bench_task *task)
{
    const struct ledger *l = user;
    (void)task;
    progress_update((double)l->round + done, NULL);
    return 0;
}

/* The models take turns, so that a machine that slows down slows all of them. */
static enum itera_status measure_round(struct ledger *l, struct itera_bench_task **tasks)
{
    enum { DECODE = 64 };
    const struct itera_bench_options options = {
        .seconds = l->seconds, .progress = on_progress, .user = l};
    const struct itera_bench_peaks no_peaks = {0};
    enum itera_status status = ITERA_OK;
    for (int i = 0; i < 2 * l->n && !status; i++) {
        struct ledger_entry *e = &l->entries[i / 2];
        int64_t limit = itera_model_info(e->model)->max_positions;
        int64_t prompt = limit && l->prompt > limit ? limit : l->prompt;
        status = itera_bench_task_model(e->model, e->name, NULL,
                                        i % 2 ? ITERA_BENCH_DECODE : ITERA_BENCH_PREFILL, 1,
                                        i % 2 ? DECODE : prompt, &tasks[i]);
    }
    if (!status)
        status = itera_bench_measure(tasks, 2 * l->n, &options);
    for (int i = 0; i < 2 * l->n; i++) {
        if (!status)
            keep_row(&l->entries[i / 2], itera_bench_task_row(tasks[i], &no_peaks));
        itera_bench_task_destroy(&tasks[i]);
    }
    return status;
}

static enum itera_status measure_speed(struct ledger *l)
{
    struct itera_bench_task **tasks = calloc(2 * (size_t)l->n, sizeof *tasks);
    enum itera_status status = ITERA_OK;
    if (!tasks) {
        command_error("no memory for %d models", l->n);
        return ITERA_ERR_MEMORY;
    }
    progress_start("speed", "rounds", (double)l->rounds);
    for (l->round = 0; l->round < l->rounds && !status; l->round++)
        status = measure_round(l, tasks);
    progress_finish(0);
    free(tasks);
    return status;
}

/* Decodes for `seconds` under the meter. */
static enum itera_status decode_metered(struct ledger *l, struct ledger_entry *e, double seconds)
{
    struct itera_session *session = NULL;
    int32_t token = 0;
    enum itera_status status = itera_session_create(e->model, NULL, &session);
    if (!status)
        status = itera_session_prefill(session, &token, 1);
    if (!status)
        status = itera_session_next(session, &token); /* compiles */
    if (!status)
        status = itera_meter_begin(l->meter);
    e->energy_tokens = 0;
    for (double begin = progress_seconds(); !status && progress_seconds() - begin < seconds;
         e->energy_tokens++)
        status = itera_session_next(session, &token);
    if (!status)
        status = itera_meter_end(l->meter, &e->energy);
    itera_session_destroy(&session);
    return status;
}

/* What a token takes, above what the machine takes at rest. Where there is no sensor a short look
 * says why. */
static enum itera_status measure_energy(struct ledger *l)
{
    enum { IDLE_SECONDS = 2, LOOK = 3 };
    enum itera_status status = meter_open(&l->request, itera_device_info(l->device), &l->meter);
    if (!status)
        status = decode_metered(l, &l->entries[0], 0.01);
    const struct itera_energy_figure *figure = l->entries[0].energy.figure;
    const bool readable = !status && !isnan(figure->joules);
    if (readable && figure->measured)
        status = itera_meter_measure_idle(l->meter, IDLE_SECONDS);
    for (int i = 0; i < l->n && !status; i++)
        status = decode_metered(l, &l->entries[i], readable ? LOOK * l->seconds : 0.01);
    itera_meter_close(&l->meter);
    return status;
}

enum itera_status ledger_measure(struct ledger *l, const struct itera_load_options *options)
{
    struct itera_corpus *corpus = NULL;
    enum itera_status status = itera_corpus_open(l->data, &corpus);
    for (int i = 0; i < l->n && !status; i++)
        status = load(l, &l->entries[i], options);
    for (int i = 0; i < l->n && !status; i++)
        status = evaluate(l, &l->entries[i], corpus);
    itera_corpus_destroy(&corpus);
    if (!status)
        status = measure_speed(l);
    if (!status)
        status = measure_energy(l);
    return status;
}
