/* Decoding ahead of the host. Where nothing but sampling decides what the next token is, the device
 * takes steps before they are asked for: each reads what the one before chose, and what it chooses is
 * copied back behind it, so that the device never waits for the host.
 *
 * A caller may stop anywhere, and then the states have gone too far. So the states are saved on the
 * device before every ITERA_AHEAD-th step, in turns to two places: at most ITERA_AHEAD steps are not
 * given out yet, so that one of the two is at or before the last token that was. From there the steps
 * are taken again, with the same programs and random numbers, to the same bits. */
#include <string.h>

#include "core/log.h"
#include "infer/session_impl.h"
#include "program/program.h"

static int32_t *token_of(const struct itera_session *s, uint64_t step)
{
    return s->ahead.token + step % (2 * ITERA_AHEAD) * (size_t)s->batch;
}

/* Whether a step after those that are queued needs nothing from the host. */
static bool may_queue(const struct itera_session *s)
{
    const struct itera_ahead *a = &s->ahead;
    const uint64_t behind = a->queued - a->out;
    if (behind >= ITERA_AHEAD || behind >= a->wanted || s->adjust)
        return false;
    for (int32_t i = 0; i < s->batch; i++)
        if (!s->sequence[i].pending ||
            (s->window && s->sequence[i].position + (int64_t)behind >= s->window))
            return false;
    return true;
}

static enum itera_status queue_step(struct itera_session *s)
{
    struct itera_ahead *a = &s->ahead;
    struct itera_job job = {.from = s->token, .bytes = (size_t)s->batch * 4};
    if (a->queued % ITERA_AHEAD == 0)
        job.run[job.n_runs++] = s->save[a->queued / ITERA_AHEAD % 2].executable;
    job.run[job.n_runs++] = s->step.executable;
    enum itera_status status = itera_submit(&job, &a->ticket[a->queued % ITERA_AHEAD]);
    a->queued += !status;
    return status;
}

static enum itera_status fail_broken(void)
{
    return itera_fail(ITERA_ERR_DEVICE,
                      "the session's state was lost when the device failed; reset "
                      "the session");
}

/* Whether the device takes work ahead; then states can be copied. One that has no room for copies goes
 * step by step. */
static enum itera_status prepare(struct itera_session *s, bool *can)
{
    struct itera_ahead *a = &s->ahead;
    struct itera_attempt attempt;
    *can = !a->never && itera_can_submit(s->step.executable);
    if (!*can)
        return ITERA_OK;
    itera_attempt_begin(&attempt);
    enum itera_status status = itera_session_make_copies(s);
    itera_attempt_end(&attempt);
    a->never = status == ITERA_ERR_MEMORY || status == ITERA_ERR_UNSUPPORTED;
    *can = !status && itera_can_submit(s->save[0].executable);
    return status && !a->never ? itera_fail(status, "%.1000s", attempt.error) : ITERA_OK;
}

/* Whether the device may run ahead from here. */
static enum itera_status begin(struct itera_session *s, bool *can)
{
    struct itera_ahead *a = &s->ahead;
    *can = false;
    if (!may_queue(s))
        return ITERA_OK;
    enum itera_status status = itera_session_make_step(s);
    if (!status)
        status = prepare(s, can);
    a->queued = a->out = 0;
    memcpy(token_of(s, 0), s->last, (size_t)s->batch * 4);
    return status;
}

enum itera_status itera_session_next_ahead(struct itera_session *s, bool *given)
{
    struct itera_ahead *a = &s->ahead;
    enum itera_status status = ITERA_OK;
    *given = false;
    if (a->broken)
        return fail_broken();
    *given = a->queued > a->out;
    if (!*given)
        status = begin(s, given);
    while (*given && !status && may_queue(s))
        status = queue_step(s);
    if (!*given)
        return status;
    if (!status)
        status = itera_collect(&a->ticket[a->out % ITERA_AHEAD], s->numbers);
    a->broken = status != ITERA_OK;
    if (status)
        return status;
    for (size_t i = 0; i < (size_t)s->batch && s->window; i++)
        s->history[i * (size_t)s->window + (size_t)s->sequence[i].position] = s->last[i];
    memcpy(s->last, s->numbers, (size_t)s->batch * 4);
    memcpy(token_of(s, ++a->out), s->last, (size_t)s->batch * 4);
    for (int32_t i = 0; i < s->batch; i++) {
        s->sequence[i].position++;
        s->sequence[i].tokens_read++;
        s->sequence[i].tokens_run++;
    }
    return ITERA_OK;
}

void itera_session_drop_ahead(struct itera_session *s)
{
    for (int i = 0; i < ITERA_AHEAD; i++)
        (void)itera_collect(&s->ahead.ticket[i], NULL);
}

/* Random streams and positions as `steps` steps ago. */
static enum itera_status wind_back(struct itera_session *s, uint64_t streams, uint64_t positions)
{
    enum itera_status status = itera_buffer_download(s->rng, 0, s->numbers, (size_t)s->batch * 16);
    for (size_t i = 0; i < (size_t)s->batch; i++) /* the op sample counts one a step */
        s->numbers[4 * i + 2] = (int32_t)((uint32_t)s->numbers[4 * i + 2] - (uint32_t)streams);
    if (!status)
        status = itera_buffer_upload(s->rng, 0, s->numbers, (size_t)s->batch * 16);
    for (int32_t i = 0; i < s->batch; i++)
        s->sequence[i].position -= (int64_t)positions;
    if (!status)
        status = itera_session_set_starts(s);
    for (int32_t i = 0; i < s->batch; i++)
        s->sequence[i].position += (int64_t)positions;
    return status;
}

enum itera_status itera_session_settle(struct itera_session *s)
{
    struct itera_ahead *a = &s->ahead;
    const uint64_t queued = a->queued, out = a->out;
    a->wanted = 0;
    a->queued = a->out = 0;
    itera_session_drop_ahead(s);
    if (a->broken)
        return fail_broken();
    if (queued == out)
        return ITERA_OK;
    uint64_t saved = (queued - 1) / ITERA_AHEAD * ITERA_AHEAD;
    if (saved > out)
        saved -= ITERA_AHEAD;
    enum itera_status status = itera_run(s->restore[saved / ITERA_AHEAD % 2].executable);
    if (!status)
        status = itera_buffer_upload(s->token, 0, token_of(s, saved), (size_t)s->batch * 4);
    if (!status)
        status = wind_back(s, queued - saved, out - saved);
    for (uint64_t step = saved; step < out && !status; step++)
        status = itera_run(s->step.executable);
    a->broken = status != ITERA_OK;
    return status;
}

enum itera_status itera_session_run_ahead(struct itera_session *session, uint64_t tokens)
{
    struct itera_ahead *a = &session->ahead;
    bool can;
    enum itera_status status = ITERA_OK;
    if (a->queued - a->out > tokens)
        status = itera_session_settle(session);
    else if (tokens > 1 && session->step.executable) /* now, and not between two tokens */
        status = prepare(session, &can);
    a->wanted = status ? 0 : tokens;
    return status;
}
