/* Tokenizers: text to token ids and back.
 *
 * Four kinds: byte (256 bytes), char (the code points of a corpus), word (its most frequent words)
 * and bpe (byte-level BPE as GPT-2 has it, trained here or read from GPT-2's or Hugging Face's
 * files). Every kind that is made here has the special token `<|endoftext|>`; char and word also
 * have `<unk>`. Whatever the kind, the text of a sequence is the concatenation of the bytes of its
 * tokens, so that generation can stream. byte and bpe keep every byte of any input, broken UTF-8
 * included. A tokenizer does not change after it is made and may be used by several threads. */
#ifndef ITERA_TOKENIZER_H
#define ITERA_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "itera/status.h"
#include "itera/version.h"

#ifdef __cplusplus
extern "C" {
#endif

struct itera_corpus;
struct itera_tokenizer;

/* A growing array of ids; {0} is an empty one. */
struct itera_tokens {
    int32_t *ids;
    size_t count;
    size_t capacity;
};
ITERA_API void itera_tokens_free(struct itera_tokens *tokens); /* leaves it empty */

/* Makes a tokenizer by a specification, from the documents of a corpus:
 *   byte     ids 0..255 are the bytes, 256 is <|endoftext|>; needs no corpus
 *   char     0 is <|endoftext|>, 1 is <unk>, then the code points in ascending order
 *   word:N   0 is <|endoftext|>, 1 is <unk>, then the most frequent words, N ids at most
 *   bpe:N    ids 0..255 are the bytes, then merges, the last id is <|endoftext|>; N ids at most
 * Fewer ids than N result when the corpus has fewer words, or no pair that occurs twice. Equal
 * counts are ordered by bytes (word) or ids (bpe), so that the result is the same everywhere.
 * Errors: ITERA_ERR_ARGUMENT for a bad specification. */
ITERA_API enum itera_status itera_tokenizer_train(const char *spec,
                                                  const struct itera_corpus *corpus,
                                                  struct itera_tokenizer **out);

/* Opens FILE: a tokenizer.json (Hugging Face's byte-level BPE, or one of ours of any kind), a
 * vocab.json or merges.txt (also with a prefix, as in gpt2_vocab.json) with the other beside it, or
 * a directory with tokenizer.json, vocab.json + merges.txt, or gpt2_vocab.json + gpt2_merges.txt.
 * A tokenizer.json means what Hugging Face's library makes of it. Errors: ITERA_ERR_IO;
 * ITERA_ERR_FORMAT, naming the file and what is wrong; ITERA_ERR_UNSUPPORTED, naming what is not
 * known; ITERA_ERR_LIMIT for files that are too large. */
ITERA_API enum itera_status itera_tokenizer_open(const char *path, struct itera_tokenizer **out);

/* As for struct itera_train_options: trains when `spec_or_path` is a specification, opens it otherwise. */
ITERA_API enum itera_status itera_tokenizer_create(const char *spec_or_path,
                                                   const struct itera_corpus *corpus,
                                                   struct itera_tokenizer **out);

/* The whole tokenizer as one JSON text (0-terminated UTF-8, the caller frees it), and back; `name`
 * is for messages. A bpe tokenizer is written in the layout of Hugging Face's tokenizer.json. */
ITERA_API enum itera_status itera_tokenizer_to_json(const struct itera_tokenizer *tokenizer,
                                                    char **json);
ITERA_API enum itera_status itera_tokenizer_from_json(const char *json, size_t length,
                                                      const char *name,
                                                      struct itera_tokenizer **out);

ITERA_API void itera_tokenizer_destroy(struct itera_tokenizer **tokenizer);

ITERA_API const char *
itera_tokenizer_kind(const struct itera_tokenizer *tokenizer); /* "byte", "char", ... */
ITERA_API int32_t itera_tokenizer_vocab_size(const struct itera_tokenizer *tokenizer);

/* Ids of the token that ends a text, <|endoftext|>, and of <unk>, -1 where there is none. A tokenizer that was read from a file
 * without <|endoftext|> uses its <|end_of_text|>, </s>, <eos> or <|im_end|> instead, if special.
 * In a model, the first eos_token_id of its configuration comes before all of these. */
ITERA_API int32_t itera_tokenizer_end_of_text(const struct itera_tokenizer *tokenizer);
/* Whether a token ends a text: the one above, and the others that the model's configuration lists. */
ITERA_API bool itera_tokenizer_is_end(const struct itera_tokenizer *tokenizer, int32_t id);
ITERA_API int32_t itera_tokenizer_unknown(const struct itera_tokenizer *tokenizer);
ITERA_API bool itera_tokenizer_is_special(const struct itera_tokenizer *tokenizer, int32_t id);

enum {
    ITERA_TEXT_PLAIN = 0,
    /* encode: the text of a special token becomes its id, instead of being text like any other.
     * decode: a special token becomes its text, instead of nothing. */
    ITERA_TEXT_SPECIAL = 1,
};

/* Appends the ids of `length` bytes to `tokens`, which keeps what it had when the call fails.
 * Errors: ITERA_ERR_MEMORY; ITERA_ERR_LIMIT when what a file asks for takes too long for this text;
 * ITERA_ERR_FORMAT when a bpe vocabulary from a file has no token for a byte of the text. */
ITERA_API enum itera_status itera_tokenizer_encode(const struct itera_tokenizer *tokenizer,
                                                   const char *text, size_t length, unsigned flags,
                                                   struct itera_tokens *tokens);

/* The bytes of one token, valid while the tokenizer lives, not 0-terminated, perhaps a part of a
 * UTF-8 sequence. <unk> is U+FFFD (char) or " <unk>" (word), whatever the flags.
 * Errors: ITERA_ERR_ARGUMENT when there is no such id. */
ITERA_API enum itera_status itera_tokenizer_decode(const struct itera_tokenizer *tokenizer,
                                                   int32_t id, unsigned flags, const char **bytes,
                                                   size_t *length);

/* The text of `count` ids, 0-terminated besides; the caller frees it. `length` may be NULL. */
ITERA_API enum itera_status itera_tokenizer_decode_all(const struct itera_tokenizer *tokenizer,
                                                       const int32_t *ids, size_t count,
                                                       unsigned flags, char **text, size_t *length);

/* Turns a stream of bytes into valid UTF-8 for a terminal or JSON: an incomplete sequence waits for
 * its end, a broken one becomes U+FFFD. {0} is a fresh stream. */
struct itera_utf8_stream {
    unsigned char pending[4];
    unsigned count;
};
#define ITERA_UTF8_ROOM(length) (3 * ((size_t)(length) + 3))

/* Both return the number of bytes put in `out`, which has ITERA_UTF8_ROOM(length) bytes for push
 * and ITERA_UTF8_ROOM(0) for finish. */
ITERA_API size_t itera_utf8_stream_push(struct itera_utf8_stream *stream, const char *bytes,
                                        size_t length, char *out);
ITERA_API size_t itera_utf8_stream_finish(struct itera_utf8_stream *stream, char *out);

#ifdef __cplusplus
}
#endif
#endif
