/* What an op is: its operands, attributes, and the rules that every backend shares. */
#ifndef ITERA_OPS_OP_H
#define ITERA_OPS_OP_H

#include "itera/status.h"
#include "tensor/tensor.h"

enum itera_op_kind {
#define ITERA_OP(name, inputs, outputs, simd, tolerance) ITERA_OP_##name,
#include "ops/op_list.h"
#undef ITERA_OP
    ITERA_OP_COUNT
};

#define ITERA_MAX_IN  10
#define ITERA_MAX_OUT 8
#define ITERA_NONE    (-1) /* an absent optional operand */
#define ITERA_NEW     (-2) /* an output that recording is to create */

enum itera_act { ITERA_ACT_NONE, ITERA_ACT_SILU, ITERA_ACT_GELU, ITERA_ACT_SOFTPLUS };

enum itera_scan_variant {
    ITERA_SCAN_AUTO, /* the backend chooses by shape */
    ITERA_SCAN_SEQUENTIAL,
    ITERA_SCAN_PARALLEL,
    ITERA_SCAN_CHUNKED,
    ITERA_SCAN_VARIANTS,
};

/* One flat set of attributes; an op reads those that its contract names, the others stay 0. */
struct itera_attr {
    uint8_t act;           /* enum itera_act, applied to the result */
    uint8_t trans_a;       /* matmul: a is given as (K, M) */
    uint8_t trans_b;       /* matmul: b is given as (N, K), as weights are stored */
    uint8_t accumulate;    /* matmul, embedding_bwd: add to what the output holds */
    uint8_t variant;       /* enum itera_scan_variant */
    uint8_t softmax_first; /* moe_route: softmax over all experts before selection */
    uint8_t renormalize;   /* moe_route: make the selected weights sum to 1 */
    uint8_t kind;          /* moe_balance: enum itera_balance_kind */
    uint8_t inverse;       /* rope: rotate backwards (its gradient) */
    uint8_t dtype;         /* cast: enum itera_dtype of the result */
    uint8_t integer;       /* matmul, grouped_matmul with b in q8 or q4: a may be rounded to int8 */
    uint8_t half;          /* matmul, grouped_matmul: a and b may be rounded to f16 */
    int32_t top_k;
    int32_t experts;
    int32_t heads;
    int32_t kv_heads;
    int32_t groups;
    int32_t chunk;  /* scans: steps between stored boundary states */
    int32_t stream; /* dropout: which random stream this op draws from */
    int32_t count;  /* advance: how far; embedding_bwd, position_embedding_bwd: table rows;
                       loss_scale: steps until it is doubled */
    float eps;
    float scale; /* scale, fill, attention (on q.k), rope (theta), kl_loss (temperature),
                    moe_balance (weight) */
    float p;     /* dropout probability; adamw weight decay */
};

enum itera_balance_kind {
    ITERA_BALANCE_VARIATION, /* itera: squared coefficient of variation of mean probabilities */
    ITERA_BALANCE_SWITCH,    /* Jamba: experts * sum of load fraction * mean probability */
};

/* The part of a model that an op belongs to, for profiles. */
enum itera_part {
    ITERA_PART_EMBEDDING,
    ITERA_PART_NORM,
    ITERA_PART_PROJECTION,
    ITERA_PART_CONV,
    ITERA_PART_SCAN,
    ITERA_PART_ATTENTION,
    ITERA_PART_ROUTER,
    ITERA_PART_EXPERTS,
    ITERA_PART_HEAD,
    ITERA_PART_LOSS,
    ITERA_PART_OPTIMIZER,
    ITERA_PART_SAMPLE,
    ITERA_PART_COUNT,
};
const char *itera_part_name(enum itera_part part);

/* One op of a program; operands are tensor ids. */
struct itera_op {
    enum itera_op_kind kind;
    enum itera_part part;
    int32_t in[ITERA_MAX_IN];
    int32_t out[ITERA_MAX_OUT];
    struct itera_attr attr;
};

struct itera_operand_shape {
    enum itera_dtype dtype;
    struct itera_shape shape;
};

static inline double itera_operand_bytes(const struct itera_operand_shape *x)
{
    return (double)itera_dtype_bytes(x->dtype, itera_shape_elements(&x->shape));
}

struct itera_cost {
    double flops; /* multiplications and additions, a transcendental counted as one */
    double bytes; /* least traffic: every operand once */
};

struct itera_program;
struct itera_autodiff;

/* The shape rule. in[i] is NULL for an absent operand. Fills out[i] (dtype and contiguous shape)
 * for every output of the op; fails with ITERA_ERR_SHAPE through itera_fail, naming the op and
 * what does not fit. Operands are already known to be present unless marked `?`. */
typedef enum itera_status itera_infer_fn(const struct itera_attr *attr,
                                         const struct itera_operand_shape *const *in,
                                         struct itera_operand_shape *out);
/* The cost rule; in and out as above (out[i] NULL when not produced). It sets cost->flops;
 * cost->bytes arrives set to the sum of all operand bytes and is changed only where that is wrong.
 */
typedef void itera_cost_fn(const struct itera_attr *attr,
                           const struct itera_operand_shape *const *in,
                           const struct itera_operand_shape *const *out, struct itera_cost *cost);
/* The gradient rule: records the ops that carry the gradients of op's outputs to its inputs, with
 * the functions of program/autodiff.h. */
typedef void itera_grad_fn(struct itera_autodiff *ad, const struct itera_op *op);

/* Defined once per op, in host/ops/<family>.c, under the name itera_op_<name>. */
struct itera_op_def {
    itera_infer_fn *infer;
    itera_cost_fn *cost; /* NULL: 0 FLOPs */
    itera_grad_fn *grad; /* NULL: not differentiable (gradient ops, integer ops, optimiser) */
    int8_t inplace;      /* output 0 may be the very storage of input inplace - 1; 0: never */
    int8_t variants;     /* number of attr.variant values; 0 for ops without variants */
};

#define ITERA_OP(name, inputs, outputs, simd, tolerance)                                           \
    extern const struct itera_op_def itera_op_##name;
#include "ops/op_list.h"
#undef ITERA_OP

/* What the list says of an op. */
struct itera_op_info {
    const char *name;
    const struct itera_op_def *def;
    double tolerance;
    uint8_t n_in, n_out;
    uint16_t optional_in, optional_out; /* bit i: operand i may be absent */
    uint16_t written_in;                /* bit i: input i is read and written */
    char in_name[ITERA_MAX_IN][16];
    char out_name[ITERA_MAX_OUT][16];
};

/* kind < ITERA_OP_COUNT. The table is built once, on first use; safe from any thread. */
const struct itera_op_info *itera_op_info(enum itera_op_kind kind);

/* Whether one of a comma list of globs (NULL: none) matches the name of an op. */
bool itera_op_matches(const char *globs, const char *name);

/* Helpers for shape rules. */
enum itera_status itera_infer_same(const struct itera_attr *attr,
                                   const struct itera_operand_shape *const *in,
                                   struct itera_operand_shape *out); /* out[0] like in[0] */
/* Fails unless operand has the dtype and dims (rank then dims; -1 matches any). `what` is
 * "op: operand". */
enum itera_status itera_expect(const char *what, const struct itera_operand_shape *operand,
                               enum itera_dtype dtype, int rank, const int64_t *dim);
/* Fails unless b has a's dims and dtype. */
enum itera_status itera_expect_same(const char *what, const struct itera_operand_shape *a,
                                    const struct itera_operand_shape *b);
/* Sets one output. */
void itera_out(struct itera_operand_shape *out, enum itera_dtype dtype, int rank,
               const int64_t *dim);

#endif
