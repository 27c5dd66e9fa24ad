/* Parity cases of products with narrow weights: f16, bf16, q8, q4, and the integer products of the
 * last two; and of those that may round their operands to f16. */
#include <stdio.h>

#include "check/case.h"
#include "check/cases_weights.h"
#include "tensor/blocks.h"

/* How the weights of case i are stored, and whether the product may be one of integers. */
static const struct {
    enum itera_dtype dtype;
    bool integer;
} kinds[] = {{ITERA_F16, 0}, {ITERA_BF16, 0}, {ITERA_Q8, 0},
             {ITERA_Q4, 0},  {ITERA_Q8, 1},   {ITERA_Q4, 1}};
enum { KINDS = sizeof kinds / sizeof *kinds };

static const char *const acts[] = {"", " silu", " gelu", " softplus"};

/* Decoding (one row, few rows), prefill, heads; columns off the tile and off 4; depths of one block,
 * around a vector of blocks, odd numbers of blocks, more than a panel. */
static const struct {
    int16_t m, n, k;
} shapes[] = {
    {1, 200, 64},  {1, 67, 32},   {2, 131, 96},  {3, 65, 160},   {4, 33, 288}, {8, 100, 256},
    {9, 17, 544},  {1, 5, 768},   {1, 1, 32},    {7, 1, 64},     {16, 31, 32}, {33, 64, 128},
    {70, 129, 96}, {65, 40, 320}, {128, 34, 64}, {29, 49, 1056}, {5, 300, 64}, {37, 7, 224},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* Products that may round to f16 whatever their weights are in. One tile and several, off their edges on
 * all sides, one step of k and one off, forms with lines along k and across, few rows. */
static const enum itera_dtype half_dtypes[] = {ITERA_F32, ITERA_F16, ITERA_BF16, ITERA_Q8,
                                               ITERA_Q4};
static const struct {
    int16_t m, n, k;
    bool trans_a, trans_b;
} half_shapes[] = {
    {64, 64, 64, 0, 1},  {130, 129, 96, 0, 1}, {33, 70, 288, 0, 0}, {65, 200, 32, 1, 0},
    {12, 67, 544, 0, 1}, {127, 66, 160, 1, 1}, {70, 300, 64, 0, 1}, {3, 40, 96, 0, 1},
};
enum {
    HALF_DTYPES = sizeof half_dtypes / sizeof *half_dtypes,
    HALF_SHAPES = sizeof half_shapes / sizeof *half_shapes
};

static bool half_matmul(struct itera_case *c, int index)
{
    if (index >= HALF_DTYPES * HALF_SHAPES)
        return false;
    const enum itera_dtype dtype = half_dtypes[index % HALF_DTYPES];
    const int turn = index / HALF_DTYPES;
    const bool blocks = itera_dtype_is_blocks(dtype), special = turn % 4 == 1;
    const bool strided = turn % 3 == 2, bias = turn % 4 == 2, residual = turn % 4 == 0;
    const int64_t m = half_shapes[turn].m, n = half_shapes[turn].n, odd = !blocks && turn % 2;
    const int64_t k = half_shapes[turn].k + odd;
    struct itera_attr attr = {.trans_a = half_shapes[turn].trans_a,
                              .trans_b = blocks || half_shapes[turn].trans_b,
                              .integer = blocks && turn % 2 && !half_shapes[turn].trans_a,
                              .half = 1,
                              .act = turn % 4 == 3 ? ITERA_ACT_SILU : ITERA_ACT_NONE};
    attr.integer &= !special; /* an infinity makes all of its block not a number there */
    int64_t a_dim[2] = {attr.trans_a ? k : m, attr.trans_a ? m : k}, y_dim[2] = {m, n};
    int64_t b_dim[2] = {attr.trans_b ? n : k, attr.trans_b ? k : n};
    int32_t in[4] = {ITERA_NONE, ITERA_NONE, ITERA_NONE, ITERA_NONE}, out = ITERA_NEW;
    in[0] = itera_case_strided(c, "a", 2, a_dim, strided ? itera_case_pick(c, 1, 9) : 0,
                               special ? ITERA_FILL_SPECIAL : ITERA_FILL_NORMAL, 0.0,
                               special ? 1e6 : 1.0);
    in[1] = itera_case_weights(c, "b", 2, b_dim, strided && !blocks ? 3 : 0, dtype, 0.0, 0.2);
    if (bias)
        in[2] = itera_case_input(c, "bias", 1, &n, ITERA_FILL_NORMAL, 0.0, 1.0);
    if (residual)
        in[3] = itera_case_input(c, "residual", 2, y_dim, ITERA_FILL_NORMAL, 0.0, 1.0);
    for (int i = 0; i < c->n_inputs; i++)
        itera_case_constant(c, c->input[i].tensor);
    snprintf(c->label, sizeof c->label, "m=%d n=%d k=%d half %c%c b=%s%s%s%s%s%s", (int)m, (int)n,
             (int)k, attr.trans_a ? 't' : 'n', attr.trans_b ? 't' : 'n', itera_dtype_name(dtype),
             acts[attr.act], bias ? " bias" : "", residual ? " residual" : "",
             strided ? " strided" : "", special ? " special" : "");
    itera_record(c->program, ITERA_OP_matmul, &attr, in, &out);
    return true;
}

bool itera_case_matmul_weights(struct itera_case *c, int index)
{
    if (index >= KINDS * (SHAPES + 4))
        return half_matmul(c, index - KINDS * (SHAPES + 4));
    const int kind = index % KINDS, turn = index / KINDS;
    const enum itera_dtype dtype = kinds[kind].dtype;
    const bool blocks = itera_dtype_is_blocks(dtype);
    int64_t m, n, k;
    if (turn < SHAPES) {
        m = shapes[turn].m;
        n = shapes[turn].n;
        k = shapes[turn].k;
    } else {
        m = itera_case_size(c, 97);
        n = itera_case_size(c, 129);
        k = ITERA_BLOCK * itera_case_pick(c, 1, 12);
    }
    if (!blocks && turn % 4 == 3)
        k += itera_case_pick(c, 1, 9); /* no blocks, no multiples of 32 */
    struct itera_attr attr = {.trans_b = blocks || turn % 5 != 4, .integer = kinds[kind].integer};
    const bool accumulate = turn % 7 == 6, half_a = !attr.integer && turn % 6 == 5;
    /* Of few elements an activation, or what is added, may leave too little to measure by what
     * rounding a to int8 changes. */
    const bool bare = accumulate || (attr.integer && m * n < 32);
    const bool bias = !bare && turn % 2, residual = !bare && turn % 3 == 1;
    const bool strided = turn % 4 == 1, extreme = turn % 9 == 8;
    attr.act = bare ? ITERA_ACT_NONE : (uint8_t)(turn % 4);
    attr.accumulate = accumulate;
    int64_t a_dim[2] = {m, k}, y_dim[2] = {m, n};
    int64_t b_dim[2] = {attr.trans_b ? n : k, attr.trans_b ? k : n};
    int32_t in[4] = {ITERA_NONE, ITERA_NONE, ITERA_NONE, ITERA_NONE}, out = ITERA_NEW;
    in[0] = itera_case_strided(c, "a", 2, a_dim, strided ? itera_case_pick(c, 1, 9) : 0,
                               extreme ? ITERA_FILL_EXTREME : ITERA_FILL_NORMAL, 0.0,
                               extreme ? 1e4 : 1.0);
    in[1] = itera_case_weights(c, "b", 2, b_dim, strided && !blocks ? 3 : 0, dtype, 0.0, 0.2);
    if (half_a)
        in[0] = itera_case_half(c, in[0]);
    if (bias)
        in[2] = itera_case_input(c, "bias", 1, &n, ITERA_FILL_NORMAL, 0.0, 1.0);
    if (residual)
        in[3] = itera_case_strided(c, "residual", 2, y_dim, strided ? 5 : 0, ITERA_FILL_NORMAL, 0.0,
                                   1.0);
    if (accumulate)
        out = itera_case_input(c, "y", 2, y_dim, ITERA_FILL_NORMAL, 0.0, 1.0);
    for (int i = 0; i < c->n_inputs; i++)
        itera_case_constant(c, c->input[i].tensor);
    snprintf(c->label, sizeof c->label, "m=%d n=%d k=%d b=%s%s%s%s%s%s%s%s%s", (int)m, (int)n,
             (int)k, itera_dtype_name(dtype), attr.trans_b ? "" : " nn", half_a ? " a=f16" : "",
             acts[attr.act], bias ? " bias" : "", residual ? " residual" : "",
             accumulate ? " accumulate" : "", strided ? " strided" : "", extreme ? " extreme" : "");
    itera_record(c->program, ITERA_OP_matmul, &attr, in, &out);
    return true;
}

/* Decoding with one row, batches of a few, prefill; more experts than rows, one expert. */
static const struct {
    int16_t rows, n, k;
    uint8_t experts;
} expert_shapes[] = {
    {2, 32, 64, 4},   {1, 67, 96, 3},  {16, 33, 32, 8}, {100, 31, 64, 4},
    {70, 130, 32, 2}, {40, 9, 160, 5}, {6, 64, 288, 8}, {33, 1, 64, 1},
};
enum { EXPERT_SHAPES = sizeof expert_shapes / sizeof *expert_shapes };

/* The three forms, as far as the weights' type takes them. */
static bool half_grouped(struct itera_case *c, int index)
{
    enum { FORMS = 3 };
    if (index >= HALF_DTYPES * FORMS)
        return false;
    const enum itera_dtype dtype = half_dtypes[index % HALF_DTYPES];
    const int form = itera_dtype_is_blocks(dtype) ? 0 : index / HALF_DTYPES;
    const int64_t rows = form ? 150 : 210, n = 70, k = 96 + 32 * (index / HALF_DTYPES), experts = 3;
    struct itera_attr attr = {
        .experts = (int32_t)experts, .trans_b = form == 0, .trans_a = form == 2, .half = 1};
    int64_t a_dim[2] = {rows, k}, n_offsets = experts + 1;
    int64_t b_dim[3] = {experts, form ? k : n, form ? n : k}, b_rows[2] = {rows, n};
    int32_t in[3], out = ITERA_NEW;
    in[0] = itera_case_strided(c, "a", 2, a_dim, form ? 0 : 5, ITERA_FILL_EXTREME, 0.0, 1e5);
    in[1] = form == 2 ? itera_case_weights(c, "b", 2, b_rows, 0, dtype, 0.0, 0.2)
                      : itera_case_weights(c, "b", 3, b_dim, 0, dtype, 0.0, 0.2);
    in[2] = itera_case_input(c, "offsets", 1, &n_offsets, ITERA_FILL_OFFSETS, 0.0, (double)rows);
    for (int i = 0; i < c->n_inputs; i++)
        itera_case_constant(c, c->input[i].tensor);
    static const char *const forms[FORMS] = {"nt", "nn", "tn"};
    snprintf(c->label, sizeof c->label, "rows=%d n=%d k=%d experts=%d half %s b=%s", (int)rows,
             (int)n, (int)k, (int)experts, forms[form], itera_dtype_name(dtype));
    itera_record(c->program, ITERA_OP_grouped_matmul, &attr, in, &out);
    return true;
}

bool itera_case_grouped_weights(struct itera_case *c, int index)
{
    if (index >= KINDS * EXPERT_SHAPES)
        return half_grouped(c, index - KINDS * EXPERT_SHAPES);
    const int kind = index % KINDS, turn = index / KINDS;
    const enum itera_dtype dtype = kinds[kind].dtype;
    const int64_t rows = expert_shapes[turn].rows, n = expert_shapes[turn].n;
    const int64_t k = expert_shapes[turn].k, experts = expert_shapes[turn].experts;
    struct itera_attr attr = {.experts = (int32_t)experts,
                              .trans_b = 1,
                              .act = (uint8_t)(turn % 4),
                              .integer = kinds[kind].integer};
    int64_t a_dim[2] = {rows, k}, b_dim[3] = {experts, n, k}, n_offsets = experts + 1;
    int32_t in[3], out = ITERA_NEW;
    in[0] = itera_case_strided(c, "a", 2, a_dim, turn % 2 ? 5 : 0, ITERA_FILL_NORMAL, 0.0, 1.0);
    in[1] = itera_case_weights(c, "b", 3, b_dim, 0, dtype, 0.0, 0.2);
    in[2] = itera_case_input(c, "offsets", 1, &n_offsets, ITERA_FILL_OFFSETS, 0.0, (double)rows);
    for (int i = 0; i < c->n_inputs; i++)
        itera_case_constant(c, c->input[i].tensor);
    snprintf(c->label, sizeof c->label, "rows=%d n=%d k=%d experts=%d b=%s%s%s", (int)rows, (int)n,
             (int)k, (int)experts, itera_dtype_name(dtype), acts[attr.act],
             turn % 2 ? " strided" : "");
    itera_record(c->program, ITERA_OP_grouped_matmul, &attr, in, &out);
    return true;
}
