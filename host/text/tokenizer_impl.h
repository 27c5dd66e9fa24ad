/* What the parts of the tokenizer share. */
#ifndef ITERA_TEXT_TOKENIZER_IMPL_H
#define ITERA_TEXT_TOKENIZER_IMPL_H

#include <pthread.h>

#include "itera/corpus.h"
#include "itera/tokenizer.h"
#include "text/added.h"
#include "text/bytemap.h"
#include "text/normalize.h"
#include "text/pretoken.h"

#define ITERA_MAX_ENDS    16
#define ITERA_END_OF_TEXT "<|endoftext|>"
#define ITERA_UNKNOWN     "<unk>"

/* More ids than any model has, and few enough that sizes never overflow. */
enum { ITERA_MAX_VOCAB = 1 << 24 };

enum itera_tokenizer_kind { ITERA_BYTE, ITERA_CHAR, ITERA_WORD, ITERA_BPE };

enum {
    ITERA_TOKEN_SPECIAL = 1,     /* decodes to nothing unless asked */
    ITERA_TOKEN_ADDED = 2,       /* matched in the text before pre-tokenizing */
    ITERA_TOKEN_MODEL = 4,       /* in the BPE model's own vocabulary */
    ITERA_TOKEN_RAW = 8,         /* its name is its text, not spelled in byte letters */
    ITERA_TOKEN_SET = 16,        /* the id is taken */
    ITERA_TOKEN_NORMALIZED = 32, /* added: looked for in normalized text */
    ITERA_TOKEN_LSTRIP = 64,     /* added: as in text/added.h */
    ITERA_TOKEN_RSTRIP = 128,
    ITERA_TOKEN_SINGLE_WORD = 256,
};

struct itera_token {
    size_t offset; /* of its bytes in the pool */
    uint32_t length;
    uint16_t flags;
};

struct itera_merge {
    int32_t left, right, result;
};

/* (left, right) -> rank, open addressing; empty slots have rank UINT32_MAX. */
struct itera_merge_slot {
    uint64_t pair;
    uint32_t rank;
    int32_t result;
};

/* Parts of a tokenizer.json, kept as they were read; NULL for null. */
enum itera_bpe_part {
    ITERA_NORMALIZER,
    ITERA_PRE_TOKENIZER, /* NULL: GPT-2's */
    ITERA_POST_PROCESSOR,
    ITERA_DECODER, /* NULL: ByteLevel */
    ITERA_BPE_PARTS
};
extern const char *const itera_bpe_part_names[ITERA_BPE_PARTS];

struct itera_bpe {
    struct itera_merge *merges; /* by rank */
    size_t merge_count;
    struct itera_merge_slot *slots;
    size_t slot_count;
    int32_t byte_ids[256]; /* -1: the vocabulary has no token for this byte */
    bool ignore_merges;    /* a piece that is a token is that token, whatever the merges say */
    bool fuse_unknown;     /* unknown bytes in a row are one unknown token */
    bool many_ways;        /* a token is the result of several merges */
    char *parts[ITERA_BPE_PARTS];
    pthread_mutex_t lock; /* guards what follows */
    struct itera_normalizer *normalizer;
    struct itera_pretokenizer *pretokenizer;
    struct itera_bytemap cache; /* piece -> offset << 24 | count in cache_ids */
    struct itera_tokens cache_ids;
    struct itera_bpe_long *long_pieces; /* NULL until there is one */
};

struct itera_tokenizer {
    enum itera_tokenizer_kind kind;
    struct itera_token *tokens;
    int32_t vocab_size, capacity;
    char *pool;
    size_t pool_size, pool_capacity;
    int32_t end_of_text, unknown;
    int32_t ends[ITERA_MAX_ENDS]; /* tokens that end a text as well */
    int n_ends;
    bool punctuation;            /* word: punctuation is split off */
    struct itera_bytemap lookup; /* bytes -> id; of the model's tokens */
    struct itera_added added;    /* looked for in the text as it is */
    struct itera_added normalized;
    struct itera_bpe *bpe;
};

/* An empty tokenizer with room for `capacity` ids, all free. */
enum itera_status itera_tokenizer_new(enum itera_tokenizer_kind kind, int32_t capacity,
                                      struct itera_tokenizer **out);

/* Gives an id its bytes. The id is below the capacity and free. */
enum itera_status itera_tokenizer_set(struct itera_tokenizer *tokenizer, int32_t id,
                                      const char *bytes, size_t length, unsigned flags);

/* To be called when all ids are set: indexes the added tokens and, for bpe, merges and pieces. */
enum itera_status itera_tokenizer_finish(struct itera_tokenizer *tokenizer, const char *name);

/* The added token with this text, or -1. */
int32_t itera_tokenizer_find_added(const struct itera_tokenizer *tokenizer, const char *text,
                                   size_t length);

/* What a model says ends a text, the first of them between documents too. Ids that are none of the
 * tokenizer's do not count; nor, where it has an end of text of its own, do those of ordinary text. */
void itera_tokenizer_set_ends(struct itera_tokenizer *tokenizer, const int32_t *ids, int n);

enum itera_status itera_tokens_append(struct itera_tokens *tokens, int32_t id);

/* tokenizer_train.c: the whole byte tokenizer; a char or word one with its two first tokens. */
enum itera_status itera_tokenizer_new_byte(struct itera_tokenizer **out);
enum itera_status itera_tokenizer_new_listed(enum itera_tokenizer_kind kind, int32_t size,
                                             struct itera_tokenizer **out);

/* tokenizer_bpe.c */
enum itera_status itera_bpe_create(struct itera_bpe **out);
void itera_bpe_destroy(struct itera_bpe **bpe);
/* Compiles the parts, and the merges to a table. */
enum itera_status itera_bpe_compile(struct itera_tokenizer *tokenizer, const char *name);
enum itera_status itera_bpe_index(struct itera_tokenizer *tokenizer, const char *name);
/* Text in which the added tokens have not been looked for. */
enum itera_status itera_bpe_encode(const struct itera_tokenizer *tokenizer, const char *text,
                                   size_t length, bool special, struct itera_budget *budget,
                                   struct itera_tokens *tokens);
/* Merges `count` ids in place, by the definition; *count becomes how many are left. */
enum itera_status itera_bpe_merge(const struct itera_bpe *bpe, int32_t *ids, size_t *count);

/* bpe_long.c: appends the ids of a piece of any length, all of whose bytes are tokens, in memory
 * of a byte for eight besides the ids. The lock is held. */
enum itera_status itera_bpe_encode_long(const struct itera_tokenizer *tokenizer, const char *piece,
                                        size_t length, struct itera_budget *budget,
                                        struct itera_tokens *tokens);
void itera_bpe_long_destroy(struct itera_bpe_long **tables);

/* bpe_train.c */
enum itera_status itera_bpe_train(const struct itera_corpus *corpus, int32_t size,
                                  struct itera_tokenizer **out);

/* corpus.c: ITERA_ERR_FORMAT with the place of the first byte that is not UTF-8. */
enum itera_status itera_corpus_check_utf8(const struct itera_corpus *corpus);

/* tokenizer_subset.c: a copy; NULL of NULL. `name` is for messages. */
enum itera_status itera_tokenizer_copy(const struct itera_tokenizer *tokenizer, const char *name,
                                       struct itera_tokenizer **out);
/* tokenizer_subset.c: the tokens with map[id] >= 0 under these ids, 0 to count - 1. The map keeps
 * their order, special tokens, all bytes (bpe), and of a merge's result both halves. */
enum itera_status itera_tokenizer_subset(const struct itera_tokenizer *from, const int32_t *map,
                                         int32_t count, struct itera_tokenizer **out);

/* Bytes of JSON or merges that are read at most. */
enum { ITERA_MAX_TOKENIZER_FILE = 1 << 26 };

/* tokenizer_json.c: vocab.json and merges.txt in memory. */
enum itera_status itera_tokenizer_from_gpt2(const char *vocab, size_t vocab_length,
                                            const char *vocab_name, const char *merges,
                                            size_t merges_length, const char *merges_name,
                                            struct itera_tokenizer **out);

#endif
