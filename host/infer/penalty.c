/* Biases and penalties: what is added to the logits before a token is chosen. The host knows the
 * tokens, so the device gets the sum: a row when settings change, one number for a token. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "infer/session_impl.h"

enum itera_status itera_session_allow_adjust(struct itera_session *s)
{
    if (s->adjust)
        return ITERA_OK;
    size_t batch = (size_t)s->batch, all = batch * (size_t)s->vocab;
    enum itera_status status = ITERA_OK;
    if (!s->penalty)
        s->penalty = calloc(batch, sizeof *s->penalty);
    if (!s->bias)
        s->bias = calloc(all, sizeof *s->bias);
    if (!s->count)
        s->count = calloc(all, sizeof *s->count);
    if (!s->penalty || !s->bias || !s->count)
        return itera_fail(ITERA_ERR_MEMORY, "no memory for the biases of %d sequences", s->batch);
    for (size_t i = 0; i < batch; i++)
        s->penalty[i] = (struct itera_penalty){.repetition = 1};
    status = itera_buffer_create(s->model->device, all * 4, &s->adjust);
    if (!status)
        status = itera_buffer_create(s->model->device, all * 4, &s->factor);
    for (int32_t i = 0; i < s->batch && !status; i++)
        status = itera_session_adjust(s, i);
    if (!status)
        status = itera_session_remake_sampling(s);
    if (status) {
        itera_buffer_destroy(&s->adjust);
        itera_buffer_destroy(&s->factor);
    }
    return status;
}

/* What is added to the logit of a token. */
static float adjustment(const struct itera_session *s, int32_t sequence, int32_t token)
{
    size_t at = (size_t)sequence * (size_t)s->vocab + (size_t)token;
    const struct itera_penalty *p = &s->penalty[sequence];
    int32_t count = s->count[at];
    return count ? s->bias[at] - p->presence - p->frequency * (float)count : s->bias[at];
}

enum itera_status itera_session_adjust(struct itera_session *s, int32_t sequence)
{
    size_t n = (size_t)s->vocab;
    float *row = malloc(n * sizeof *row);
    if (!row)
        return itera_fail(ITERA_ERR_MEMORY, "no memory for the biases of a sequence");
    for (int32_t t = 0; t < s->vocab; t++)
        row[t] = adjustment(s, sequence, t);
    enum itera_status status = itera_buffer_upload(s->adjust, (size_t)sequence * n * 4, row, n * 4);
    for (size_t t = 0; t < n; t++)
        row[t] = s->count[(size_t)sequence * n + t] ? s->penalty[sequence].repetition : 1;
    if (!status)
        status = itera_buffer_upload(s->factor, (size_t)sequence * n * 4, row, n * 4);
    free(row);
    return status;
}

enum itera_status itera_session_set_penalty(struct itera_session *s, int32_t sequence,
                                            struct itera_penalty penalty)
{
    size_t n = (size_t)s->vocab;
    s->penalty[sequence] = penalty;
    memset(s->count + (size_t)sequence * n, 0, n * sizeof *s->count);
    return itera_session_adjust(s, sequence);
}

enum itera_status itera_session_count(struct itera_session *s, int32_t sequence, int32_t token)
{
    size_t at = (size_t)sequence * (size_t)s->vocab + (size_t)token;
    const struct itera_penalty *p = &s->penalty[sequence];
    if (s->count[at] < INT32_MAX)
        s->count[at]++;
    float value = adjustment(s, sequence, token);
    enum itera_status status = ITERA_OK;
    if (p->presence != 0 || p->frequency != 0)
        status = itera_buffer_upload(s->adjust, at * 4, &value, 4);
    if (!status && p->repetition != 1)
        status = itera_buffer_upload(s->factor, at * 4, &p->repetition, 4);
    return status;
}

enum itera_status itera_session_set_bias(struct itera_session *session, int32_t sequence,
                                         const int32_t *tokens, const float *bias, size_t count)
{
    struct itera_session *s = session;
    enum itera_status status = sequence == -1 ? ITERA_OK : itera_session_expect(s, sequence);
    if (!status)
        status = itera_session_settle(s);
    for (size_t k = 0; k < count && !status; k++) {
        if (tokens[k] < 0 || tokens[k] >= s->vocab)
            status = itera_fail(ITERA_ERR_ARGUMENT,
                                "a bias for token %d, which is out of range; the model has %d",
                                tokens[k], s->vocab);
        else if (!isfinite(bias[k]))
            status = itera_fail(
                ITERA_ERR_ARGUMENT,
                "the bias of token %d is not finite; a large negative one forbids it", tokens[k]);
    }
    if (!status && (count || s->adjust))
        status = itera_session_allow_adjust(s);
    if (status || !s->adjust)
        return status;
    int32_t first = sequence < 0 ? 0 : sequence, end = sequence < 0 ? s->batch : sequence + 1;
    for (int32_t i = first; i < end && !status; i++) {
        float *row = s->bias + (size_t)i * (size_t)s->vocab;
        memset(row, 0, (size_t)s->vocab * sizeof *row);
        for (size_t k = 0; k < count; k++)
            row[tokens[k]] = bias[k];
        status = itera_session_adjust(s, i);
    }
    return status;
}
