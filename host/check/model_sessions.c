/* Sessions of a model: one token after the other beside whole sequences, and sequences apart from the
 * others of their batch beside the same in step. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check/model_rows.h"
#include "core/log.h"
#include "core/number.h"
#include "itera/session.h"

/* The share of positions at which device and reference must agree on the likeliest token. */
static const double AGREEMENT = 0.99;

static int64_t likeliest(const float *logits, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

static double rms(const float *a, const float *b, int64_t n)
{
    return sqrt(itera_model_compare(a, b, n).nmse);
}

/* The share of rows whose likeliest token is the expected one. Where the expected logits of two
 * tokens are nearer to each other than the permitted error, either may win. */
static double agreement(const float *got, const float *expected, int64_t rows, int64_t vocab,
                        double limit)
{
    int64_t agree = 0;
    for (int64_t r = 0; r < rows; r++) {
        const float *a = got + r * vocab, *b = expected + r * vocab;
        int64_t best = likeliest(b, vocab), mine = likeliest(a, vocab);
        double gap = (double)b[best] - b[mine], size = fabs((double)b[best]);
        agree += mine == best || gap <= 2 * limit * size;
    }
    return rows ? (double)agree / (double)rows : 1;
}

/* Decodes the tokens one by one from a session's state: its logits against those of the whole
 * sequence, and how the difference grows with length. */
static enum itera_status check_decode(struct itera_model_check *c, struct itera_model *m,
                                      const struct itera_model_values *expected)
{
    int64_t batch = expected->batch, time = expected->time, vocab = m->config.vocab;
    size_t row = (size_t)vocab;
    struct itera_session_options options = {.batch = (int32_t)batch};
    struct itera_session *session = NULL;
    float *logits = malloc((size_t)batch * (size_t)time * row * sizeof *logits);
    float *last = malloc((size_t)batch * row * sizeof *last);
    int32_t *tokens = malloc((size_t)batch * (size_t)time * sizeof *tokens);
    enum itera_status status = ITERA_OK;
    if (!logits || !last || !tokens)
        status = itera_fail(ITERA_ERR_MEMORY, "no memory to check a model");
    if (!status)
        status = itera_session_create(m, &options, &session);
    for (int64_t t = 0; t < time && !status; t++) {
        for (int64_t b = 0; b < batch; b++)
            tokens[b] = expected->ids[b * time + t];
        status = itera_session_prefill(session, tokens, 1);
        if (!status)
            status = itera_session_logits(session, last);
        for (int64_t b = 0; b < batch && !status; b++)
            memcpy(logits + (b * time + t) * vocab, last + b * vocab, row * sizeof *last);
    }
    if (!status) {
        struct itera_model_error e =
            itera_model_compare(logits, expected->logits, batch * time * vocab);
        int64_t some = time < 128 ? (time + 1) / 2 : 64;
        char label[160];
        itera_format(label, sizeof label,
                     "%lld tokens one by one; rms error first %lld %.2g, last %.2g",
                     (long long)time, (long long)some, rms(logits, expected->logits, some * vocab),
                     rms(logits + (time - some) * vocab, expected->logits + (time - some) * vocab,
                         some * vocab));
        status = itera_model_report(c, "decode", label, &e, e.max_rel, c->logits_limit, NULL);
    }
    if (!status) {
        double share = agreement(logits, expected->logits, batch * time, vocab, c->logits_limit);
        char label[96], why[96];
        itera_format(label, sizeof label, "%.2f%% of %lld tokens agree", 100 * share,
                     (long long)(batch * time));
        itera_format(why, sizeof why, "at least %.0f%% must agree", 100 * AGREEMENT);
        struct itera_model_error e = {.max_rel = 1 - share, .finite = true};
        status = itera_model_report(c, "greedy", label, &e, 1 - share, 1 - AGREEMENT,
                                    share < AGREEMENT ? why : NULL);
    }
    /* The same state, reached in chunks. */
    if (!status)
        status = itera_session_reset(session);
    if (!status)
        status = itera_session_prefill(session, expected->ids, (size_t)time);
    if (!status)
        status = itera_session_logits(session, last);
    if (!status) {
        for (int64_t b = 0; b < batch; b++)
            memcpy(logits + b * vocab, expected->logits + ((b + 1) * time - 1) * vocab,
                   row * sizeof *last);
        struct itera_model_error e = itera_model_compare(last, logits, batch * vocab);
        char label[64];
        snprintf(label, sizeof label, "%lld tokens in chunks", (long long)time);
        status = itera_model_report(c, "prefill", label, &e, e.max_rel, c->logits_limit, NULL);
    }
    itera_session_destroy(&session);
    free(logits);
    free(last);
    free(tokens);
    return status;
}

/* ---- sequences apart from each other -------------------------------------------------------- */

enum { PAIR = 2, MOST_STEPS = 16 };

/* Two texts of 2 `half` tokens, and the last logits of each way to read them, (PAIR, vocab). */
struct apart {
    struct itera_model_check *check;
    int32_t text[PAIR][2 * MOST_STEPS];
    int32_t half;
    int64_t vocab;
    double tolerance;
    float *got, *expected, *both;
};

/* Token t of each of `count` sequences from `first` on; token by token, as longer prefills may sum in
 * another order. */
static enum itera_status read_one(const struct apart *a, struct itera_session *s, int32_t first,
                                  size_t count, const int32_t *t)
{
    int32_t sequences[PAIR], tokens[PAIR];
    for (size_t k = 0; k < count; k++) {
        sequences[k] = first + (int32_t)k;
        tokens[k] = a->text[sequences[k]][t[k]];
    }
    return itera_session_prefill_some(s, sequences, count, tokens, 1);
}

/* One sequence alone reads tokens `from` to `to` of a text. */
static enum itera_status read_alone(struct itera_session *s, int32_t sequence, const int32_t *text,
                                    int32_t from, int32_t to)
{
    enum itera_status status = ITERA_OK;
    for (int32_t t = from; t < to && !status; t++)
        status = itera_session_prefill_some(s, &sequence, 1, &text[t], 1);
    return status;
}

/* The logits of a sequence become row `row` of out. */
static enum itera_status keep_logits(const struct apart *a, struct itera_session *s,
                                     int32_t sequence, float *out, int32_t row)
{
    enum itera_status status = itera_session_logits(s, a->both);
    if (!status)
        memcpy(out + row * a->vocab, a->both + sequence * a->vocab, (size_t)a->vocab * sizeof *out);
    return status;
}

static enum itera_status report_apart(const struct apart *a, const char *op, int64_t rows,
                                      const char *label)
{
    struct itera_model_error e = itera_model_compare(a->got, a->expected, rows * a->vocab);
    return itera_model_report(a->check, op, label, &e, e.max_rel, a->tolerance, NULL);
}

/* Sequence 1 begins where 0 has read half of its text, and each goes on as it does in step. */
static enum itera_status check_positions(const struct apart *a, struct itera_session *s,
                                         struct itera_session *in_step)
{
    const int32_t half = a->half;
    enum itera_status status = ITERA_OK;
    for (int32_t t = 0; t < half && !status; t++)
        status = read_one(a, in_step, 0, PAIR, (int32_t[]){t, t});
    if (!status)
        status = keep_logits(a, in_step, 1, a->expected, 1);
    for (int32_t t = half; t < 2 * half && !status; t++)
        status = read_one(a, in_step, 0, 1, &t);
    if (!status)
        status = keep_logits(a, in_step, 0, a->expected, 0);
    for (int32_t t = 0; t < half && !status; t++)
        status = read_one(a, s, 0, 1, &t);
    for (int32_t t = 0; t < half && !status; t++)
        status = read_one(a, s, 0, PAIR, (int32_t[]){half + t, t});
    for (int32_t i = 0; i < PAIR && !status; i++)
        status = keep_logits(a, s, i, a->got, i);
    char label[96];
    snprintf(label, sizeof label, "2 sequences %d tokens apart, beside the same in step", half);
    return status ? status : report_apart(a, "positions", PAIR, label);
}

/* A copy of sequence 0 goes on as it does. */
static enum itera_status check_fork(const struct apart *a, struct itera_session *s)
{
    const int32_t half = a->half;
    enum itera_status status = itera_session_reset(s);
    if (!status)
        status = read_alone(s, 0, a->text[0], 0, half);
    if (!status)
        status = itera_session_copy(s, 0, 1);
    if (!status)
        status = read_alone(s, 0, a->text[0], half, 2 * half);
    if (!status)
        status = read_alone(s, 1, a->text[0], half, 2 * half);
    if (!status)
        status = keep_logits(a, s, 0, a->expected, 0);
    if (!status)
        status = keep_logits(a, s, 1, a->got, 0);
    char label[96];
    snprintf(label, sizeof label, "copied after %d tokens, both %d further", half, half);
    return status ? status : report_apart(a, "fork", 1, label);
}

/* What another session loads at another place goes on as what was saved. */
static enum itera_status check_save(const struct apart *a, struct itera_session *s,
                                    struct itera_session *other)
{
    const int32_t half = a->half;
    void *bytes = NULL;
    size_t size = 0;
    enum itera_status status = itera_session_reset(s);
    if (!status)
        status = itera_session_reset(other);
    if (!status)
        status = read_alone(s, 0, a->text[0], 0, half);
    if (!status)
        status = itera_session_save(s, 0, &bytes, &size);
    if (!status)
        status = itera_session_load(other, 1, bytes, size);
    if (!status)
        status = read_alone(s, 0, a->text[0], half, 2 * half);
    if (!status)
        status = read_alone(other, 1, a->text[0], half, 2 * half);
    if (!status)
        status = keep_logits(a, s, 0, a->expected, 0);
    if (!status)
        status = keep_logits(a, other, 1, a->got, 0);
    free(bytes);
    char label[96];
    snprintf(label, sizeof label, "%zu bytes saved after %d tokens, both %d further", size, half,
             half);
    return status ? status : report_apart(a, "save_load", 1, label);
}

static enum itera_status check_apart(struct itera_model_check *c, struct itera_model *m,
                                     const struct itera_model_values *expected)
{
    struct apart a = {.check = c, .vocab = m->config.vocab};
    a.half = (int32_t)(expected->time < 2 * MOST_STEPS ? expected->time / 2 : MOST_STEPS);
    if (a.half == 0)
        return itera_model_report_skip(c, "positions", "", "the text has fewer than 2 tokens");
    /* Bit for bit; but how many rows an expert gets decides on the CPU how they are added up. */
    const bool on_cpu =
        m->device->info.type == ITERA_DEVICE_CPU || itera_device_fallback_op(m->device, 0) != NULL;
    if (on_cpu && m->config.experts > 0)
        a.tolerance = c->logits_limit;
    for (int32_t t = 0; t < 2 * a.half; t++) {
        a.text[0][t] = expected->ids[t];
        a.text[1][t] = expected->ids[expected->time - 1 - t];
    }
    const struct itera_session_options options = {.batch = PAIR};
    struct itera_session *s = NULL, *other = NULL;
    enum itera_status status = ITERA_OK;
    a.got = calloc(3 * PAIR * (size_t)a.vocab, sizeof *a.got);
    if (!a.got)
        status = itera_fail(ITERA_ERR_MEMORY, "no memory to check a model");
    else
        a.expected = a.got + PAIR * a.vocab, a.both = a.expected + PAIR * a.vocab;
    if (!status)
        status = itera_session_create(m, &options, &s);
    if (!status)
        status = itera_session_create(m, &options, &other);
    if (!status)
        status = check_positions(&a, s, other);
    if (!status)
        status = check_fork(&a, s);
    if (!status)
        status = check_save(&a, s, other);
    itera_session_destroy(&s);
    itera_session_destroy(&other);
    free(a.got);
    return status;
}

enum itera_status itera_model_check_sessions(struct itera_model_check *c, struct itera_model *m,
                                             const struct itera_model_values *expected)
{
    const enum itera_status status = check_decode(c, m, expected);
    return status ? status : check_apart(c, m, expected);
}
