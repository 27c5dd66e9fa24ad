/* libFuzzer: the bytes before the first zero byte are a tokenizer as JSON, the rest a text. What
 * opens survives a round trip through JSON, encodes, and decodes to what it promises. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "itera/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct itera_tokenizer *tokenizer, const char *text, size_t length,
                unsigned flags)
{
    struct itera_tokens tokens = {0};
    char *back;
    size_t back_length;
    if (itera_tokenizer_encode(tokenizer, text, length, flags, &tokens) == ITERA_OK) {
        for (size_t i = 0; i < tokens.count; i++)
            if (tokens.ids[i] < 0 || tokens.ids[i] >= itera_tokenizer_vocab_size(tokenizer))
                abort();
        if (itera_tokenizer_decode_all(tokenizer, tokens.ids, tokens.count, ITERA_TEXT_SPECIAL,
                                       &back, &back_length) != ITERA_OK)
            abort();
        if (strcmp(itera_tokenizer_kind(tokenizer), "byte") == 0 &&
            (back_length != length || memcmp(back, text, length) != 0))
            abort();
        struct itera_utf8_stream stream = {0};
        char *clean = malloc(ITERA_UTF8_ROOM(back_length));
        if (!clean)
            abort();
        size_t written = itera_utf8_stream_push(&stream, back, back_length, clean);
        itera_utf8_stream_finish(&stream, clean + written);
        free(clean);
        free(back);
    } else if (tokens.count != 0) {
        abort();
    }
    itera_tokens_free(&tokens);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
    size_t length = zero ? (size_t)(zero - data) : size;
    const char *text = (const char *)data + length;
    size_t text_length = size - length;
    struct itera_tokenizer *tokenizer, *again;
    if (itera_tokenizer_from_json((const char *)data, length, "fuzz", &tokenizer) != ITERA_OK)
        return 0;
    char *first, *second;
    if (itera_tokenizer_to_json(tokenizer, &first) != ITERA_OK ||
        itera_tokenizer_from_json(first, strlen(first), "again", &again) != ITERA_OK ||
        itera_tokenizer_to_json(again, &second) != ITERA_OK || strcmp(first, second) != 0)
        abort();
    use(tokenizer, text, text_length, ITERA_TEXT_PLAIN);
    use(again, (const char *)data, size, ITERA_TEXT_SPECIAL);
    itera_tokenizer_destroy(&tokenizer);
    itera_tokenizer_destroy(&again);
    free(first);
    free(second);
    return 0;
}
