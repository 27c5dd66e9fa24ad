/* The inside of sessions: what its files share, and what benchmarks look at. */
#ifndef ITERA_INFER_SESSION_IMPL_H
#define ITERA_INFER_SESSION_IMPL_H

#include "itera/session.h"
#include "model/phase.h"

enum { ITERA_SESSION_CHUNK_BITS = 12 }; /* the largest chunk is 1 << this */

/* A compiled program of a few ops. */
struct itera_session_small {
    struct itera_program *program;
    struct itera_executable *executable;
};

/* A state of all sequences: one after the other, `row` bytes each, from `offset` of the states. */
struct itera_session_slot {
    size_t offset, row;
    size_t per_position; /* bytes of a cache's row per position; 0: all of `row` is the state */
};

struct itera_sequence {
    int64_t position;     /* in the window */
    uint64_t tokens_read; /* since the beginning */
    uint64_t tokens_run;  /* those among them that the model ran over, again counted again */
    bool pending;         /* its token was given out, and not read yet */
};

#define ITERA_SESSION_MOST_REPETITION 1000.0f

struct itera_penalty {
    float presence, frequency, repetition; /* repetition is 1 for none */
};

/* Steps that the device takes before they are asked for: infer/ahead.c. */
enum { ITERA_AHEAD = 8 }; /* at most so many, and one copy of the state in as many */
struct itera_ahead {
    uint64_t wanted;      /* tokens that the caller said it would ask for, and has not yet */
    uint64_t queued, out; /* steps since the device began to run ahead: queued, given out */
    struct itera_ticket *ticket[ITERA_AHEAD]; /* of step k at k % ITERA_AHEAD */
    int32_t *token; /* (2 ITERA_AHEAD, batch): what steps read, step k at k % (2 ITERA_AHEAD) */
    bool never;     /* the device lacks the memory for it, or the ops */
    bool broken;    /* a step failed: where the states are nobody knows, until a reset */
};

struct itera_session {
    struct itera_model *model;
    int32_t batch, vocab;
    int32_t
        tokens; /* the ids below it are sampled: others are padding, no tokens of the tokenizer */
    int chunk_bits; /* the largest chunk is 1 << chunk_bits */
    int64_t window; /* positions that the model has; 0: no end */
    itera_prefill_progress_fn *progress;
    bool telling; /* it is a prefill that reads */
    void *user;

    struct itera_buffer *states, *derived;
    struct itera_buffer *ids;      /* i32 (batch, chunk): what prefill reads */
    struct itera_buffer *token;    /* i32 (batch): what decode reads and samples into */
    struct itera_buffer *start;    /* i32 (batch) */
    struct itera_buffer *logits;   /* f32 (batch, vocab) of the last position */
    struct itera_buffer *sampling; /* f32 (batch, 4), see the op sample */
    struct itera_buffer *rng;      /* i32 (batch, 4) */
    struct itera_buffer *adjust;   /* f32 (batch, vocab): added before sampling; NULL: nothing is */
    struct itera_buffer
        *factor; /* f32 (batch, vocab), with adjust: of the op penalize, before it */
    struct itera_session_slot *slots;
    int n_slots;

    /* Prefill of 1 << i tokens, compiled on first use. */
    struct itera_model_phase chunk[ITERA_SESSION_CHUNK_BITS + 1];
    struct itera_model_phase step; /* token -> logits -> token */
    struct itera_session_small clear, sample;

    /* Copies of states, made on first use: infer/put_back.c. The sequences that stay while others
     * go on are run, too, and put back after; and what ran ahead may have to be undone. */
    struct itera_buffer *kept; /* per state, and for the logits: (2 batch, row) */
    struct itera_buffer *pick; /* i32 (batch): the row of these that stays */
    struct itera_session_small save[2], restore[2]; /* to and from its halves */
    struct itera_session_small merge;
    struct itera_ahead ahead;

    struct itera_sequence *sequence; /* (batch) */
    bool moved;                      /* the log knows that the window moves */
    int32_t *last;                   /* (batch): the host's copy of token where one is pending */
    int32_t *history;       /* (batch, window): tokens at the positions so far; NULL without end */
    int32_t *staging;       /* (batch, chunk) */
    int32_t *numbers;       /* (batch, 4): scratch */
    int32_t *rng_kept;      /* (batch, 4): scratch */
    void *zeros;            /* as many bytes as the largest state of a sequence has */
    int32_t end_of_text;    /* the token itself, to be read from here */
    const int32_t **rows;   /* (batch): what each sequence is to read; NULL: it stays */
    const int32_t **group;  /* (batch): those of `rows` that are read together */
    uint8_t *active, *ways; /* (batch): scratch of next */
    struct itera_penalty *penalty; /* (batch); these three are NULL without adjust */
    float *bias;                   /* (batch, vocab) */
    int32_t *count;                /* (batch, vocab): how often next gave out a token */

    bool identified;
    uint8_t identity[16]; /* of the model, once it was asked for */
};

/* Whether there is such a sequence, else ITERA_ERR_ARGUMENT. */
enum itera_status itera_session_expect(const struct itera_session *s, int32_t sequence);
/* The device's positions are those of the host. */
enum itera_status itera_session_set_starts(struct itera_session *s);
/* Compiles what reads 1 << bits tokens, and what decodes one, unless that was done. */
enum itera_status itera_session_make_chunk(struct itera_session *s, int bits);
enum itera_status itera_session_make_step(struct itera_session *s);
/* Zeroes states and positions of the sequences that have a row; their counters are the caller's. */
enum itera_status itera_session_clear(struct itera_session *s, const int32_t *const *rows);
/* Zeroes the state and the position of one sequence; its counters are the caller's. */
enum itera_status itera_session_clear_one(struct itera_session *s, int32_t sequence);

/* Compiles sampling again, after `adjust` was made. */
enum itera_status itera_session_remake_sampling(struct itera_session *s);
/* Biases and penalties, infer/penalty.c: there is memory for them from now on. */
enum itera_status itera_session_allow_adjust(struct itera_session *s);
/* Sets the penalties of a sequence and begins its counts anew. */
enum itera_status itera_session_set_penalty(struct itera_session *s, int32_t sequence,
                                            struct itera_penalty penalty);
/* A token was given out. */
enum itera_status itera_session_count(struct itera_session *s, int32_t sequence, int32_t token);
/* The device has what bias, counts and penalty of a sequence say. */
enum itera_status itera_session_adjust(struct itera_session *s, int32_t sequence);

/* Around runs that only some sequences are to notice: keeps states, logits and random streams of
 * all; then puts back those of the sequences where active[i] is 0, and the positions of all. */
enum itera_status itera_session_keep(struct itera_session *s);
enum itera_status itera_session_merge(struct itera_session *s, const uint8_t *active);

/* Programs that copy states and logits to both halves of `kept`, and back. */
enum itera_status itera_session_make_copies(struct itera_session *s);

/* The next token of every sequence into s->last, if the device has run ahead or may: *given says
 * whether. */
enum itera_status itera_session_next_ahead(struct itera_session *s, bool *given);
/* Makes the session's state that after the tokens which were given out. What looks at a state, or
 * changes one, begins with this. */
enum itera_status itera_session_settle(struct itera_session *s);
/* Waits for the steps that were not given out and forgets them: the end of a session, or a part of
 * settling. */
void itera_session_drop_ahead(struct itera_session *s);

/* The compiled step of a session that was warmed, which reads and samples one token; the session's.
 * Running it moves the session on without its knowledge: itera_session_reset makes up for that. */
struct itera_executable *itera_session_step(const struct itera_session *session,
                                            const struct itera_program **program,
                                            size_t *state_bytes);

#endif
