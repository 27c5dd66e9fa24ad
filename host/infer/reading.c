/* Reading tokens and choosing the next ones, for all sequences of a session or some. */
#include <string.h>

#include "core/log.h"
#include "infer/session_impl.h"

/* Says how far a prefill is, if anybody listens. */
static enum itera_status tell(const struct itera_session *s, size_t done, size_t n)
{
    if (s->telling && s->progress && s->progress(s->user, done, n))
        return itera_fail(ITERA_ERR_CANCELLED, "reading was stopped after %zu of %zu tokens", done,
                          n);
    return ITERA_OK;
}

/* Runs n tokens of each sequence that has a row through the model. */
static enum itera_status read_tokens(struct itera_session *s, const int32_t *const *rows, size_t n)
{
    bool all = true;
    for (int32_t i = 0; i < s->batch; i++) {
        s->active[i] = rows[i] != NULL;
        all = all && rows[i];
    }
    enum itera_status status = all ? ITERA_OK : itera_session_keep(s);
    int bits = s->chunk_bits;
    for (size_t done = 0; done < n && !status;) {
        while ((size_t)1 << bits > n - done)
            bits--;
        size_t count = (size_t)1 << bits;
        for (size_t i = 0; i < (size_t)s->batch; i++) {
            if (rows[i])
                memcpy(s->staging + i * count, rows[i] + done, count * 4);
            else
                memset(s->staging + i * count, 0, count * 4);
        }
        status = itera_session_make_chunk(s, bits);
        if (!status)
            status = itera_buffer_upload(s->ids, 0, s->staging, (size_t)s->batch * count * 4);
        if (!status)
            status = itera_run(s->chunk[bits].executable);
        done += count;
        for (int32_t i = 0; i < s->batch; i++) {
            if (!rows[i])
                continue;
            s->sequence[i].position += (int64_t)count;
            s->sequence[i].tokens_run += count;
        }
        if (!status)
            status = tell(s, done, n);
    }
    /* The others stay as they are, also where it was stopped. */
    const enum itera_status merged = all || (status && status != ITERA_ERR_CANCELLED)
                                         ? ITERA_OK
                                         : itera_session_merge(s, s->active);
    return status ? status : merged;
}

/* The window has no room for n more tokens of the given rows, which are at the same position: keeps
 * what is read again, followed by the new tokens, at the start of the history, and makes that the
 * rows. The result is that of reading them one by one: each time the window is full, its last half
 * is read again. Returns how many to read. */
static size_t move_window(struct itera_session *s, const int32_t **rows, size_t position, size_t n)
{
    size_t window = (size_t)s->window, half = window / 2, fresh = window - half;
    size_t over = position + n - window;
    size_t after = (over - 1) % fresh + 1; /* new tokens since the last move */
    size_t keep = half + after;
    size_t from_tokens = keep < n ? keep : n, from_history = keep - from_tokens;
    for (size_t i = 0; i < (size_t)s->batch; i++) {
        if (!rows[i])
            continue;
        int32_t *row = s->history + i * window;
        memmove(row, row + position - from_history, from_history * 4);
        memcpy(row + from_history, rows[i] + n - from_tokens, from_tokens * 4);
        rows[i] = row;
    }
    if (!s->moved)
        itera_log(ITERA_LOG_INFO,
                  "the model's %zu positions are used up: reading the last %zu again from a fresh "
                  "state, now and each time",
                  window, half);
    s->moved = true;
    return keep;
}

/* Those of the rows that are at this position (-1: with room for n more tokens) become the group,
 * and are taken off the rows. Returns how many. */
static int32_t take_group(struct itera_session *s, int64_t position, size_t n)
{
    int32_t count = 0;
    for (int32_t i = 0; i < s->batch; i++) {
        int64_t at = s->sequence[i].position;
        bool taken =
            s->rows[i] && (position < 0 ? (size_t)at + n <= (size_t)s->window : at == position);
        s->group[i] = taken ? s->rows[i] : NULL;
        if (!taken)
            continue;
        s->rows[i] = NULL;
        count++;
    }
    return count;
}

/* Reads n tokens of the sequences with rows (s->rows, which are used up). */
static enum itera_status feed(struct itera_session *s, size_t n)
{
    for (int32_t i = 0; i < s->batch; i++)
        if (s->rows[i])
            s->sequence[i].tokens_read += n;
    if (!s->window)
        return read_tokens(s, s->rows, n);
    enum itera_status status = ITERA_OK;
    size_t window = (size_t)s->window;
    if (take_group(s, -1, n)) {
        for (size_t i = 0; i < (size_t)s->batch; i++)
            if (s->group[i])
                memcpy(s->history + i * window + s->sequence[i].position, s->group[i], n * 4);
        status = read_tokens(s, s->group, n);
    }
    for (int32_t i = 0; i < s->batch && !status; i++) {
        if (!s->rows[i])
            continue;
        int64_t position = s->sequence[i].position;
        take_group(s, position, n);
        size_t keep = move_window(s, s->group, (size_t)position, n);
        status = itera_session_clear(s, s->group);
        if (!status)
            status = read_tokens(s, s->group, keep);
    }
    return status;
}

/* Where tokens are, for sequence list[k] at k: a list that is NULL is all sequences in order. */
static int32_t listed(const int32_t *list, size_t k)
{
    return list ? list[k] : (int32_t)k;
}

/* Sequences that exist, each once. */
static enum itera_status check_list(struct itera_session *s, const int32_t *list, size_t count)
{
    if (!list)
        return count ? itera_session_expect(s, count > INT32_MAX ? -1 : (int32_t)count - 1)
                     : ITERA_OK;
    enum itera_status status = ITERA_OK;
    memset(s->active, 0, (size_t)s->batch);
    for (size_t k = 0; k < count; k++) {
        if ((status = itera_session_expect(s, list[k])))
            return status;
        if (s->active[list[k]]++)
            return itera_fail(ITERA_ERR_ARGUMENT, "sequence %d is in the list twice", list[k]);
    }
    return ITERA_OK;
}

/* No sequence reads anything; then the caller sets rows. */
static void no_rows(struct itera_session *s)
{
    memset((void *)s->rows, 0, (size_t)s->batch * sizeof *s->rows);
}

/* One end-of-text token for those of the sequences that have read nothing. */
static enum itera_status feed_end_of_text(struct itera_session *s, const int32_t *list,
                                          size_t count)
{
    int32_t found = 0;
    no_rows(s);
    for (size_t k = 0; k < count; k++) {
        int32_t i = listed(list, k);
        if (s->sequence[i].tokens_read)
            continue;
        s->rows[i] = &s->end_of_text;
        found++;
    }
    if (!found)
        return ITERA_OK;
    const struct itera_model *m = s->model;
    int32_t id = m->tokenizer ? itera_tokenizer_end_of_text(m->tokenizer) : -1;
    if (id < 0)
        id = m->config.eos >= 0 ? m->config.eos : m->config.bos;
    if (id < 0 || id >= s->vocab)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "nothing to begin from: no token was given, and the model has no "
                          "end-of-text token");
    s->end_of_text = id;
    return feed(s, 1);
}

/* Reads the tokens that were given out last to those of the sequences that are marked. */
static enum itera_status feed_pending(struct itera_session *s, const uint8_t *marked)
{
    int32_t found = 0;
    no_rows(s);
    for (int32_t i = 0; i < s->batch; i++) {
        if (!marked[i] || !s->sequence[i].pending)
            continue;
        s->rows[i] = s->last + i;
        s->sequence[i].pending = false;
        found++;
    }
    return found ? feed(s, 1) : ITERA_OK;
}

static enum itera_status prefill(struct itera_session *s, const int32_t *list, size_t count,
                                 const int32_t *tokens, size_t n)
{
    if (n > (size_t)INT32_MAX)
        return itera_fail(ITERA_ERR_LIMIT, "a prompt of %zu tokens", n);
    for (size_t i = 0; i < count * n; i++)
        if (tokens[i] < 0 || tokens[i] >= s->vocab)
            return itera_fail(ITERA_ERR_ARGUMENT,
                              "token %d at position %zu is out of range; the model has %d tokens",
                              tokens[i], i % n, s->vocab);
    enum itera_status status = itera_session_settle(s);
    if (status)
        return status;
    memset(s->ways, 0, (size_t)s->batch);
    for (size_t k = 0; k < count; k++)
        s->ways[listed(list, k)] = 1;
    status = feed_pending(s, s->ways);
    if (status)
        return status;
    if (n == 0)
        return feed_end_of_text(s, list, count);
    no_rows(s);
    for (size_t k = 0; k < count; k++)
        s->rows[listed(list, k)] = tokens + k * n;
    s->telling = true;
    status = feed(s, n);
    s->telling = false;
    return status;
}

enum itera_status itera_session_prefill(struct itera_session *session, const int32_t *tokens,
                                        size_t n)
{
    return prefill(session, NULL, (size_t)session->batch, tokens, n);
}

enum itera_status itera_session_prefill_some(struct itera_session *session,
                                             const int32_t *sequences, size_t count,
                                             const int32_t *tokens, size_t n)
{
    enum itera_status status = check_list(session, sequences, count);
    return status || !count ? status : prefill(session, sequences, count, tokens, n);
}

/* How a sequence gets its next token. */
enum { STAYS, SAMPLES, STEPS };

/* Runs the program that gives a token to the sequences that go this way, if there are any, and
 * keeps the others from it. */
static enum itera_status run_way(struct itera_session *s, uint8_t way,
                                 struct itera_executable *executable)
{
    int32_t found = 0;
    for (int32_t i = 0; i < s->batch; i++) {
        s->active[i] = s->ways[i] == way;
        found += s->active[i];
    }
    if (!found)
        return ITERA_OK;
    bool all = found == s->batch;
    enum itera_status status = all ? ITERA_OK : itera_session_keep(s);
    if (!status)
        status = itera_run(executable);
    for (int32_t i = 0; i < s->batch && way == STEPS; i++) {
        if (!s->active[i])
            continue;
        s->sequence[i].position++;
        s->sequence[i].tokens_read++;
        s->sequence[i].tokens_run++;
    }
    if (!status)
        status = itera_buffer_download(s->token, 0, s->numbers, (size_t)s->batch * 4);
    for (int32_t i = 0; i < s->batch && !status; i++)
        if (s->active[i])
            s->last[i] = s->numbers[i];
    if (status || all)
        return status;
    /* What was given out to the others before is still to be read. */
    status = itera_buffer_upload(s->token, 0, s->last, (size_t)s->batch * 4);
    return status ? status : itera_session_merge(s, s->active);
}

static enum itera_status next(struct itera_session *s, const int32_t *list, size_t count,
                              int32_t *tokens)
{
    enum itera_status status = feed_end_of_text(s, list, count);
    if (status)
        return status;
    memset(s->ways, STAYS, (size_t)s->batch);
    bool full = false, step = false;
    for (size_t k = 0; k < count; k++) { /* those whose window has no room, first */
        int32_t i = listed(list, k);
        const struct itera_sequence *q = &s->sequence[i];
        s->ways[i] = q->pending && s->window && q->position >= s->window;
        full = full || s->ways[i];
    }
    if (full)
        status = feed_pending(s, s->ways);
    for (size_t k = 0; k < count; k++) {
        int32_t i = listed(list, k);
        s->ways[i] = s->sequence[i].pending ? STEPS : SAMPLES;
        if (s->ways[i] != STEPS)
            continue;
        step = true;
        if (s->window)
            s->history[i * s->window + s->sequence[i].position] = s->last[i];
    }
    if (!status && step)
        status = itera_session_make_step(s);
    if (!status)
        status = run_way(s, STEPS, s->step.executable);
    if (!status)
        status = run_way(s, SAMPLES, s->sample.executable);
    for (size_t k = 0; k < count; k++) {
        int32_t i = listed(list, k);
        s->sequence[i].pending = !status;
        if (!status)
            tokens[k] = s->last[i];
    }
    for (size_t k = 0; k < count && s->adjust && !status; k++)
        status = itera_session_count(s, listed(list, k), tokens[k]);
    return status;
}

enum itera_status itera_session_next(struct itera_session *session, int32_t *tokens)
{
    struct itera_session *s = session;
    bool given;
    enum itera_status status = itera_session_next_ahead(s, &given);
    if (!status && given)
        memcpy(tokens, s->last, (size_t)s->batch * 4);
    else if (!status)
        status = next(s, NULL, (size_t)s->batch, tokens);
    s->ahead.wanted -= s->ahead.wanted > 0;
    return status;
}

enum itera_status itera_session_next_some(struct itera_session *session, const int32_t *sequences,
                                          size_t count, int32_t *tokens)
{
    enum itera_status status = check_list(session, sequences, count);
    if (!status)
        status = itera_session_settle(session);
    return status || !count ? status : next(session, sequences, count, tokens);
}
