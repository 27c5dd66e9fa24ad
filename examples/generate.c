/* Loads a model and continues a prompt, over the public interface of libitera:
 *
 *     cc generate.c $(pkg-config --cflags --libs itera) -o generate
 *     ./generate model.safetensors "Once upon a time" 100
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <itera/itera.h>

static void print_log(void *user, enum itera_log_level level, const char *message)
{
    (void)user;
    if (level != ITERA_LOG_DEBUG)
        fprintf(stderr, "%s\n", message);
}

/* Prints what a token stands for. A token may be part of a character only: the stream holds it back
 * until the rest comes. */
static enum itera_status print_token(const struct itera_tokenizer *tokenizer, int32_t id,
                                     struct itera_utf8_stream *stream)
{
    const char *bytes;
    size_t length;
    enum itera_status status = itera_tokenizer_decode(tokenizer, id, 0, &bytes, &length);
    if (status)
        return status;
    char *text = malloc(ITERA_UTF8_ROOM(length));
    if (!text)
        return ITERA_ERR_MEMORY;
    fwrite(text, 1, itera_utf8_stream_push(stream, bytes, length, text), stdout);
    fflush(stdout);
    free(text);
    return ITERA_OK;
}

static enum itera_status generate(struct itera_model *model, const char *prompt, int count)
{
    const struct itera_tokenizer *tokenizer = itera_model_tokenizer(model);
    if (!tokenizer) {
        fprintf(stderr, "the model has no tokenizer\n");
        return ITERA_ERR_ARGUMENT;
    }
    struct itera_session *session = NULL;
    struct itera_tokens tokens = {0};
    struct itera_utf8_stream stream = {0};
    struct itera_sampling sampling = {.temperature = 0.7f, .top_p = 0.95f, .seed = 1};

    enum itera_status status =
        itera_tokenizer_encode(tokenizer, prompt, strlen(prompt), 0, &tokens);
    if (!status)
        status = itera_session_create(model, NULL, &session);
    if (!status)
        status = itera_session_set_sampling(session, 0, &sampling);
    if (!status)
        status = itera_session_prefill(session, tokens.ids, tokens.count);
    fputs(prompt, stdout);
    for (int i = 0; i < count && !status; i++) {
        int32_t id;
        status = itera_session_next(session, &id);
        if (status || itera_tokenizer_is_end(tokenizer, id))
            break;
        status = print_token(tokenizer, id, &stream);
    }
    putchar('\n');
    itera_tokens_free(&tokens);
    itera_session_destroy(&session);
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: generate MODEL PROMPT [TOKENS]\n");
        return 2;
    }
    itera_set_log(print_log, NULL);
    struct itera_device *device = NULL;
    struct itera_model *model = NULL;
    enum itera_status status = itera_device_open("auto", NULL, &device);
    if (!status)
        status = itera_model_load(device, argv[1], &model);
    if (!status)
        status = generate(model, argv[2], argc > 3 ? atoi(argv[3]) : 100);
    /* In reverse: a model belongs to its device. */
    itera_model_destroy(&model);
    itera_device_close(&device);
    return status ? 1 : 0;
}
