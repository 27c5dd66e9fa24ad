/* Recording a model into a program, for one phase and shape. Families are written with these
 * functions; each in its own file. */
#ifndef ITERA_MODEL_GRAPH_H
#define ITERA_MODEL_GRAPH_H

#include "model/config.h"
#include "model/layout.h"
#include "program/program.h"

enum itera_phase {
    ITERA_PHASE_TRAIN, /* dropout, saved statistics, losses */
    ITERA_PHASE_EVAL,  /* whole sequences from a fresh state, logits of every position */
    ITERA_PHASE_INFER, /* continues from a session's state and leaves the next one there */
};

/* Memory that lives from run to run: a session's state, or values derived from weights. */
struct itera_slot {
    int32_t tensor;
    int64_t offset; /* bytes in the state (or derived) buffer */
    bool cache;     /* a state with a row per position: those from the sequence's on mean nothing */
};

#define ITERA_GRAPH_MAX_AUX 256

struct itera_graph {
    const struct itera_config *config;
    struct itera_layout *layout;
    bool declaring; /* parameters are added to the layout instead of looked up */
    int next_param;
    int32_t *param_tensor; /* per layout parameter, in the order of declaration */

    struct itera_program *p;
    enum itera_phase phase;
    int64_t batch, time;
    bool all_logits; /* INFER: logits of every position, not the last alone */

    /* Bound tensors made by itera_graph_record. */
    int32_t ids;       /* i32 (batch, time) */
    int32_t start;     /* INFER: i32 (batch), the position of the first id; else ITERA_NONE */
    int32_t rng;       /* TRAIN with dropout: i32 (4), see dropout; else ITERA_NONE */
    int32_t logits;    /* f32 (batch, time, vocab), or (batch, vocab) of the last position */
    bool logits_bound; /* logits is to be a bound tensor, for the caller to read */

    /* INFER */
    struct itera_slot *states;
    int n_states, cap_states;
    int64_t state_bytes;
    int64_t positions; /* capacity of attention caches */
    /* INFER: what depends on weights alone is computed once, by this program. */
    struct itera_program *prepare;
    int32_t *prepare_param; /* per layout parameter: its tensor in prepare, or ITERA_NONE */
    struct itera_slot *derived;
    int32_t *derived_in_prepare;
    int n_derived, cap_derived;
    int64_t derived_bytes;

    /* TRAIN */
    int32_t next_stream;
    int n_aux;
    int32_t aux[ITERA_GRAPH_MAX_AUX];  /* weighted auxiliary losses, (1) each */
    int32_t load[ITERA_GRAPH_MAX_AUX]; /* share of assignments per expert, (E) each */
};

/* Fills layout (zeroed by the caller) from the configuration. Destroy with itera_layout_destroy. */
enum itera_status itera_layout_create(const struct itera_config *config,
                                      struct itera_layout *layout);
void itera_layout_destroy(struct itera_layout *layout);
/* Gives the parameters their places in memory, after a change of their types. All are f32 in a new
 * layout, with place == 4 * offset. */
void itera_layout_place(struct itera_layout *layout);

/* Records config's model; the caller sets phase, batch, time, all_logits, positions and
 * logits_bound before, the function creates the programs and fills the rest. Destroy the graph on
 * success and failure alike. */
enum itera_status itera_graph_record(struct itera_graph *g, const struct itera_config *config,
                                     struct itera_layout *layout);
void itera_graph_destroy(struct itera_graph *g);

/* Records the training loss of the logits: *ce, the mean cross-entropy with targets (i32, batch x
 * time, -1: not counted), plus *aux, the sum of the auxiliary losses (ITERA_NONE without any). */
int32_t itera_graph_losses(const struct itera_graph *g, int32_t targets, int32_t *ce, int32_t *aux);
/* The sum of the auxiliary losses alone; ITERA_NONE without any. */
int32_t itera_graph_aux_loss(const struct itera_graph *g);

/* For families. Names are printf formats of one layer number. */
struct itera_param_spec {
    int32_t rank;
    int64_t dim[ITERA_MAX_RANK];
    int32_t file_rank; /* 0: the same dims in the file */
    int64_t file_dim[ITERA_MAX_RANK];
    bool matrix; /* a matrix of products, or an embedding */
    enum itera_init init;
    float init_scale;
    int32_t experts;     /* > 0: dim[0]; one file tensor each, the names' second number */
    const char *name[2]; /* name[1]: stacked below name[0] along the rows, in equal halves */
};
int32_t itera_graph_param(struct itera_graph *g, int layer, const struct itera_param_spec *spec);
/* A state tensor of the session, zero at its start; ITERA_NONE outside ITERA_PHASE_INFER. */
int32_t itera_graph_state(struct itera_graph *g, const char *name, int layer, int rank,
                          const int64_t *dim);
/* The same with a row per position, of which only those before the sequence's position are read:
 * dim is (batch, positions, ...). */
int32_t itera_graph_cache(struct itera_graph *g, const char *name, int layer, int rank,
                          const int64_t *dim);
/* -exp(param): computed once per session when nothing can change it. */
int32_t itera_graph_neg_exp(struct itera_graph *g, int32_t param);

/* Building blocks. x is (batch, time, C) throughout. */
/* Attributes of the product x.weight^T: what it may round its operands to (op matmul). A router's
 * choices must not depend on rounding to f16. */
struct itera_attr itera_block_product(const struct itera_graph *g, int32_t weight);
/* Whether a product with a weight of this type may round to f16. */
bool itera_takes_half(const struct itera_layout *layout, enum itera_dtype dtype);
int32_t itera_block_linear(struct itera_graph *g, int32_t x, int32_t weight, int32_t bias);
int32_t itera_block_add(struct itera_graph *g, int32_t a, int32_t b);
int32_t itera_block_unary(struct itera_graph *g, enum itera_op_kind kind, int32_t x);
int32_t itera_block_silu_mul(struct itera_graph *g, int32_t x, int32_t z);
int32_t itera_block_layer_norm(struct itera_graph *g, int32_t x, int layer, const char *weight,
                               const char *bias);
int32_t itera_block_rms_norm(struct itera_graph *g, int32_t x, int layer, const char *weight);
int32_t itera_block_dropout(struct itera_graph *g, int32_t x);
/* Token plus learned position embeddings, as itera and transformer begin; sets *table to the token
 * embedding. */
int32_t itera_block_embed(struct itera_graph *g, int32_t *table);
/* A projection (out, in), bias NULL for none; residual: it writes to the residual stream, and
 * starts smaller by sqrt(2 layers). */
int32_t itera_block_projection(struct itera_graph *g, int32_t x, int layer, const char *name,
                               const char *bias, int64_t out, bool residual);
int32_t itera_block_conv(struct itera_graph *g, int32_t x, int layer, const char *weight,
                         const char *bias);

struct itera_moe_names {
    const char *router;
    const char *up[2]; /* one: GELU expert; two (gate, up): SwiGLU */
    const char *down;
};
/* x is the normalised input. dense: the same part without router, as one expert. */
int32_t itera_block_moe(struct itera_graph *g, int32_t x, int layer,
                        const struct itera_moe_names *names);
int32_t itera_block_feed_forward(struct itera_graph *g, int32_t x, int layer,
                                 const struct itera_moe_names *names, int64_t width);

/* The families: from ids to what the head multiplies; the head is the tied embedding, or
 * `lm_head.weight`. They return the final hidden state (batch, time or 1, hidden), and set
 * *embedding. */
int32_t itera_family_itera(struct itera_graph *g, int32_t *embedding);
int32_t itera_family_transformer(struct itera_graph *g, int32_t *embedding);
int32_t itera_family_mamba(struct itera_graph *g, int32_t *embedding);
int32_t itera_family_itera_m(struct itera_graph *g, int32_t *embedding);
/* Before the final norm: keeps the last position only where that is all that is wanted. */
int32_t itera_block_last(struct itera_graph *g, int32_t x);

#endif
