/* itera generate --prompts: many texts, several at once on the device, in the order of their prompts. A
 * text is a function of its prompt and its place in the order, not of what it is computed with. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/stop.h"
#include "commands/generate.h"

struct text {
    const char *prompt;
    size_t length;
    struct itera_tokens read;
    int32_t *ids;
    int64_t n;
    const char *stopped; /* NULL: it goes on */
};

struct many {
    const struct generate_request *request;
    const struct itera_tokenizer *tokenizer;
    struct itera_session *session;
    int32_t batch;
    struct text *text;
    int64_t count, done; /* texts, and those that came to their end */
    int64_t tokens;      /* generated */
    double seconds;
    json_t *results;
};

static bool no_memory(void)
{
    command_error("generate: out of memory");
    return false;
}

/* ---- prompts --------------------------------------------------------------------------------- */

/* Cuts the prompts out of `all`: lines, or all of it. The samples of a prompt follow each other. */
static bool take_prompts(struct many *m, const char *all, size_t length)
{
    const bool lines = m->request->prompts;
    int64_t prompts = 1;
    if (lines && length && all[length - 1] == '\n')
        length--;
    for (size_t i = 0; lines && i < length; i++)
        prompts += all[i] == '\n';
    m->count = prompts * m->request->samples;
    m->text = calloc((size_t)m->count, sizeof *m->text);
    if (!m->text)
        return no_memory();
    const char *at = all, *end = all + length;
    for (int64_t i = 0; i < m->count; i += m->request->samples) {
        const char *next = lines ? memchr(at, '\n', (size_t)(end - at)) : NULL;
        size_t n = (size_t)((next ? next : end) - at);
        if (lines && n && at[n - 1] == '\r')
            n--;
        for (int64_t k = 0; k < m->request->samples; k++) {
            m->text[i + k].prompt = at;
            m->text[i + k].length = n;
        }
        at = next ? next + 1 : end;
    }
    return true;
}

/* ---- generation ------------------------------------------------------------------------------ */

/* Sequences [first, last) of the batch read the same prompt. */
static enum itera_status read_prompt(struct many *m, const struct itera_tokens *prompt,
                                     int32_t first, int32_t last)
{
    const size_t count = (size_t)(last - first), n = prompt->count;
    int32_t *rows = malloc((count * n + count + 1) * sizeof *rows);
    if (!rows) {
        no_memory();
        return ITERA_ERR_MEMORY;
    }
    int32_t *sequences = rows + count * n;
    for (size_t i = 0; i < count; i++) {
        if (n)
            memcpy(rows + i * n, prompt->ids, n * sizeof *rows);
        sequences[i] = first + (int32_t)i;
    }
    const enum itera_status status =
        itera_session_prefill_some(m->session, sequences, count, rows, n);
    free(rows);
    return status;
}

static enum itera_status begin(struct many *m, int64_t from, int32_t n)
{
    enum itera_status status = itera_session_reset(m->session);
    for (int32_t i = 0; i < n && !status; i++) {
        struct text *t = &m->text[from + i];
        const struct itera_sampling sampling = generate_sampling(m->request, (uint64_t)(from + i));
        status = itera_tokenizer_encode(m->tokenizer, t->prompt, t->length,
                                        m->request->special ? ITERA_TEXT_SPECIAL : 0, &t->read);
        t->ids = calloc((size_t)m->request->count + 1, sizeof *t->ids);
        if (!status && !t->ids) {
            no_memory();
            status = ITERA_ERR_MEMORY;
        }
        if (!status)
            status = itera_session_set_sampling(m->session, i, &sampling);
    }
    for (int32_t i = 0, last; i < n && !status; i = last) {
        for (last = i + 1; last < n && m->text[from + last].prompt == m->text[from + i].prompt;)
            last++;
        status = read_prompt(m, &m->text[from + i].read, i, last);
    }
    return status;
}

/* One more token of each text that goes on. */
static enum itera_status step(struct many *m, int64_t from, int32_t n, int32_t *active,
                              int32_t *tokens, int32_t *going)
{
    *going = 0;
    for (int32_t i = 0; i < n; i++)
        if (!m->text[from + i].stopped)
            active[(*going)++] = i;
    if (!*going)
        return ITERA_OK;
    enum itera_status status = itera_session_next_some(m->session, active, (size_t)*going, tokens);
    for (int32_t k = 0; k < *going && !status; k++) {
        struct text *t = &m->text[from + active[k]];
        if (!m->request->ignore_eot && itera_tokenizer_is_end(m->tokenizer, tokens[k])) {
            t->stopped = "end-of-text";
            continue;
        }
        t->ids[t->n++] = tokens[k];
        m->tokens++;
        if (t->n == m->request->count)
            t->stopped = "length";
    }
    return status;
}

/* `n` texts from `from` on, together. */
static enum itera_status generate_group(struct many *m, int64_t from, int32_t n)
{
    int32_t *active = calloc(2 * (size_t)n, sizeof *active), going = n;
    if (!active) {
        no_memory();
        return ITERA_ERR_MEMORY;
    }
    enum itera_status status = begin(m, from, n);
    for (int32_t i = 0; i < n && !m->request->count; i++)
        m->text[from + i].stopped = "length";
    const double start = progress_seconds();
    while (!status && going && !stop_asked()) {
        status = step(m, from, n, active, active + n, &going);
        progress_update((double)(from * m->request->count + m->tokens), NULL);
    }
    m->seconds += progress_seconds() - start;
    for (int32_t i = 0; i < n && !status; i++)
        if (!m->text[from + i].stopped)
            m->text[from + i].stopped = "interrupted";
    free(active);
    return status;
}

/* ---- results --------------------------------------------------------------------------------- */

/* As UTF-8; the caller's to free. */
static char *utf8(const char *bytes, size_t length)
{
    struct itera_utf8_stream stream = {0};
    char *out = malloc(ITERA_UTF8_ROOM(length) + ITERA_UTF8_ROOM(0) + 1);
    if (!out) {
        no_memory();
        return NULL;
    }
    size_t used = itera_utf8_stream_push(&stream, bytes, length, out);
    used += itera_utf8_stream_finish(&stream, out + used);
    out[used] = '\0';
    return out;
}

static bool show(struct many *m, int64_t index)
{
    struct text *t = &m->text[index];
    char *bytes = NULL;
    size_t length;
    if (itera_tokenizer_decode_all(m->tokenizer, t->ids, (size_t)t->n, ITERA_TEXT_SPECIAL, &bytes,
                                   &length))
        return false;
    char *text = utf8(bytes, length), *prompt = utf8(t->prompt, t->length);
    const bool good = text && prompt;
    if (good && m->results)
        json_array_append_new(m->results,
                              json_pack("{s:o, s:o, s:I, s:I, s:I, s:s}", "prompt",
                                        output_string(prompt), "text", output_string(text),
                                        "sample", (json_int_t)(index % m->request->samples),
                                        "prompt_tokens", (json_int_t)t->read.count, "tokens",
                                        (json_int_t)t->n, "stopped", t->stopped));
    /* A blank line stands between texts, which have lines of their own. */
    if (good && !output_on_stdout(&m->request->json))
        printf("%s%s%s\n", index ? "\n" : "", m->request->no_echo ? "" : prompt, text);
    free(text);
    free(prompt);
    free(bytes);
    free(t->ids);
    itera_tokens_free(&t->read);
    t->ids = NULL;
    return good;
}

static int report(struct many *m, const struct itera_device *device)
{
    const double rate = m->seconds > 0 ? (double)m->tokens / m->seconds : 0;
    progress_line("%lld of %lld texts, %lld tokens, %.0f tokens/s in batches of %d",
                  (long long)m->done, (long long)m->count, (long long)m->tokens, rate, m->batch);
    if (!m->request->json.given)
        return EXIT_OK;
    json_t *root = json_pack("{s:O, s:s, s:i, s:I, s:o, s:o}", "results", m->results, "device",
                             itera_device_info(device)->id, "batch", (int)m->batch, "seed",
                             (json_int_t)m->request->seed, "decode_tokens_per_second",
                             output_number(rate), "fallback_ops", device_fallback_json(device));
    const int code = output_json(root, m->request->json.value);
    json_decref(root);
    return code;
}

static bool run(struct many *m)
{
    progress_start("generate", "tok", (double)(m->count * m->request->count));
    bool good = true;
    while (m->done < m->count && good && !stop_asked()) {
        const int64_t left = m->count - m->done;
        const int32_t n = left < m->batch ? (int32_t)left : m->batch;
        good = !generate_group(m, m->done, n);
        progress_hold(true);
        for (int32_t i = 0; i < n && good; i++, m->done++)
            good = show(m, m->done);
        progress_hold(false);
        good = good && output_arrives();
    }
    progress_finish(0);
    return good;
}

int generate_many(struct itera_model *model, const struct itera_device *device,
                  const struct generate_request *r)
{
    struct many m = {.request = r, .tokenizer = itera_model_tokenizer(model)};
    size_t length = 0;
    if (!m.tokenizer) {
        command_error("the model has no tokenizer; name one with --tokenizer FILE");
        return EXIT_FAILED;
    }
    char *all = generate_prompt(r, &length);
    bool good = all && take_prompts(&m, all, length);
    m.batch = (int32_t)(good && m.count < r->batch ? m.count : r->batch);
    const struct itera_session_options options = {.batch = m.batch,
                                                  .positions = (int32_t)r->positions};
    if (r->json.given)
        m.results = json_array();
    good = good && !itera_session_create(model, &options, &m.session);
    if (good) {
        stop_catch();
        good = run(&m);
    }
    int code = good && report(&m, device) == EXIT_OK ? EXIT_OK : EXIT_FAILED;
    itera_session_destroy(&m.session);
    for (int64_t i = m.done; m.text && i < m.count; i++) {
        free(m.text[i].ids);
        itera_tokens_free(&m.text[i].read);
    }
    free(m.text);
    free(all);
    json_decref(m.results);
    return code;
}
