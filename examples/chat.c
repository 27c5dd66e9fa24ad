/* Answers lines from stdin, and keeps the conversation as the model's state, a few kilobytes for state
 * space models whatever its length, so that the next run goes on where this one ended:
 *
 *     cc chat.c $(pkg-config --cflags --libs itera) -o chat
 *     ./chat model.safetensors conversation.state
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <itera/itera.h>

#define ANSWER 80 /* tokens at most */

static void print_log(void *user, enum itera_log_level level, const char *message)
{
    (void)user;
    if (level != ITERA_LOG_DEBUG)
        fprintf(stderr, "%s\n", message);
}

/* Goes on from the state in a file; without the file, from the beginning. */
static enum itera_status restore(struct itera_session *session, const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return ITERA_OK;
    unsigned char *bytes = NULL, *more;
    size_t size = 0, room = 0, got = 1;
    while (got) {
        if (size == room) {
            room = room ? 2 * room : 1 << 16;
            if (!(more = realloc(bytes, room)))
                break;
            bytes = more;
        }
        got = fread(bytes + size, 1, room - size, file);
        size += got;
    }
    const bool whole = !got && !ferror(file);
    fclose(file);
    /* What a file says is checked: a damaged one, or another model's, is an error. */
    enum itera_status status = whole ? itera_session_load(session, 0, bytes, size) : ITERA_ERR_IO;
    free(bytes);
    if (!whole)
        fprintf(stderr, "%s: cannot read it\n", path);
    if (!status)
        fprintf(stderr, "going on after %llu tokens\n",
                (unsigned long long)itera_session_sequence_tokens_read(session, 0));
    return status;
}

static enum itera_status keep(struct itera_session *session, const char *path)
{
    void *bytes;
    size_t size;
    enum itera_status status = itera_session_save(session, 0, &bytes, &size);
    if (!status) {
        status = itera_file_write(path, bytes, size); /* the old state or the new one, whole */
        free(bytes);
    }
    return status;
}

/* Reads a line, and prints what the model says to it, up to the end of its line. */
static enum itera_status answer(struct itera_session *session,
                                const struct itera_tokenizer *tokenizer, const char *line)
{
    struct itera_tokens tokens = {0};
    enum itera_status status = itera_tokenizer_encode(tokenizer, line, strlen(line), 0, &tokens);
    if (!status)
        status = itera_session_prefill(session, tokens.ids, tokens.count);
    itera_tokens_free(&tokens);
    for (int i = 0; i < ANSWER && !status; i++) {
        int32_t id;
        const char *bytes;
        size_t length;
        status = itera_session_next(session, &id);
        if (status || itera_tokenizer_is_end(tokenizer, id))
            break;
        status = itera_tokenizer_decode(tokenizer, id, 0, &bytes, &length);
        if (status || memchr(bytes, '\n', length))
            break;
        fwrite(bytes, 1, length, stdout); /* generate.c shows how to hold back broken characters */
    }
    putchar('\n');
    fflush(stdout);
    return status;
}

static enum itera_status chat(struct itera_model *model, const char *path)
{
    const struct itera_tokenizer *tokenizer = itera_model_tokenizer(model);
    const struct itera_sampling sampling = {.temperature = 0.7f, .min_p = 0.05f, .seed = 1};
    struct itera_session *session = NULL;
    char line[4096];
    if (!tokenizer) {
        fprintf(stderr, "the model has no tokenizer\n");
        return ITERA_ERR_ARGUMENT;
    }
    enum itera_status status = itera_session_create(model, NULL, &session);
    if (!status)
        status = itera_session_set_sampling(session, 0, &sampling);
    if (!status)
        status = restore(session, path); /* its sampling and random stream as well */
    while (!status && fgets(line, sizeof line, stdin))
        status = answer(session, tokenizer, line);
    if (!status)
        status = keep(session, path);
    itera_session_destroy(&session);
    return status;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: chat MODEL STATE\n");
        return 2;
    }
    itera_set_log(print_log, NULL);
    struct itera_device *device = NULL;
    struct itera_model *model = NULL;
    enum itera_status status = itera_device_open("auto", NULL, &device);
    if (!status)
        status = itera_model_load(device, argv[1], &model);
    if (!status)
        status = chat(model, argv[2]);
    itera_model_destroy(&model);
    itera_device_close(&device);
    return status ? 1 : 0;
}
