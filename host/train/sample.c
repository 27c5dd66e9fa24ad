/* What the model in training writes, for people who watch. */
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "itera/session.h"
#include "itera/tokenizer.h"
#include "train/trainer_impl.h"

/* The text of tokens, as UTF-8; the caller's to free. */
static enum itera_status decode(const struct itera_tokenizer *tokenizer, const int32_t *ids,
                                int32_t n, char **out)
{
    struct itera_utf8_stream stream = {0};
    char *bytes = NULL;
    size_t length, used;
    const enum itera_status status =
        itera_tokenizer_decode_all(tokenizer, ids, (size_t)n, ITERA_TEXT_SPECIAL, &bytes, &length);
    char *text = status ? NULL : malloc(ITERA_UTF8_ROOM(length) + ITERA_UTF8_ROOM(0) + 1);
    if (text) {
        used = itera_utf8_stream_push(&stream, bytes, length, text);
        used += itera_utf8_stream_finish(&stream, text + used);
        text[used] = '\0';
    }
    free(bytes);
    *out = text;
    return status || text ? status
                          : itera_fail(ITERA_ERR_MEMORY, "training: no memory for a sample");
}

static enum itera_status run(struct itera_session *session, const struct itera_tokenizer *tokenizer,
                             const struct itera_tokens *prompt,
                             const struct itera_sampling *sampling, int32_t *ids, int32_t most,
                             int32_t *n)
{
    enum itera_status status = itera_session_set_sampling(session, 0, sampling);
    if (!status)
        status = itera_session_prefill(session, prompt->ids, prompt->count);
    for (*n = 0; *n < most && !status; (*n)++) {
        status = itera_session_next(session, &ids[*n]);
        if (!status && itera_tokenizer_is_end(tokenizer, ids[*n]))
            break;
    }
    return status;
}

enum itera_status itera_trainer_sample(struct itera_trainer *t, const char *prompt, int32_t tokens,
                                       const struct itera_sampling *sampling, char **text)
{
    const struct itera_tokenizer *tokenizer = itera_model_tokenizer(t->model);
    struct itera_session *session = NULL;
    struct itera_tokens read = {0};
    *text = NULL;
    if (tokens < 0 || tokens > 1 << 20)
        return itera_fail(ITERA_ERR_ARGUMENT, "training: a sample of %d tokens", tokens);
    int32_t *ids = calloc((size_t)tokens + 1, sizeof *ids), n = 0;
    enum itera_status status =
        ids ? ITERA_OK : itera_fail(ITERA_ERR_MEMORY, "training: no memory for a sample");
    /* The weights are not to change while the session reads them. */
    if (!status)
        status = itera_train_read_steps(t);
    if (!status)
        status = itera_tokenizer_encode(tokenizer, prompt, strlen(prompt), 0, &read);
    if (!status)
        status = itera_session_create(t->model, NULL, &session);
    if (!status)
        status = run(session, tokenizer, &read, sampling, ids, tokens, &n);
    if (!status)
        status = decode(tokenizer, ids, n, text);
    if (!status)
        status = itera_train_log_sample(t, prompt, *text);
    itera_session_destroy(&session);
    itera_tokens_free(&read);
    free(ids);
    if (status) {
        free(*text);
        *text = NULL;
    }
    return status;
}
