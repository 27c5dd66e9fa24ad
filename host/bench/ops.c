/* Tasks of single ops, at the shapes of the presets. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench_impl.h"
#include "core/log.h"

#define F32 ITERA_F32
#define I32 ITERA_I32
#define SELECTIVE(T, C, N)                                                                         \
    {                                                                                              \
        {"x", F32, 3, {1, T, C}}, {"dt", F32, 3, {1, T, C}}, {"neg_A", F32, 2, {C, N}},            \
            {"B", F32, 3, {1, T, N}}, {"C", F32, 3, {1, T, N}}, {"D", F32, 1, {C}},                \
            {"z", F32, 3, {1, T, C}},                                                              \
        {                                                                                          \
            "state", F32, 3,                                                                       \
            {                                                                                      \
                1, C, N                                                                            \
            }                                                                                      \
        }                                                                                          \
    }
#define SSD(T)                                                                                     \
    {                                                                                              \
        {"x", F32, 3, {1, T, 3072}}, {"dt", F32, 3, {1, T, 48}}, {"neg_A", F32, 1, {48}},          \
            {"B", F32, 3, {1, T, 128}}, {"C", F32, 3, {1, T, 128}}, {"D", F32, 1, {48}},           \
        {                                                                                          \
            "state", F32, 4,                                                                       \
            {                                                                                      \
                1, 48, 64, 128                                                                     \
            }                                                                                      \
        }                                                                                          \
    }
#define MATMUL_NT(M, N, K)                                                                         \
    {                                                                                              \
        {"a", F32, 2, {M, K}},                                                                     \
        {                                                                                          \
            "b", F32, 2,                                                                           \
            {                                                                                      \
                N, K                                                                               \
            }                                                                                      \
        }                                                                                          \
    }
#define MATMUL_NN(M, N, K)                                                                         \
    {                                                                                              \
        {"a", F32, 2, {M, K}},                                                                     \
        {                                                                                          \
            "b", F32, 2,                                                                           \
            {                                                                                      \
                K, N                                                                               \
            }                                                                                      \
        }                                                                                          \
    }
#define MATMUL_TN(M, N, K)                                                                         \
    {                                                                                              \
        {"a", F32, 2, {K, M}},                                                                     \
        {                                                                                          \
            "b", F32, 2,                                                                           \
            {                                                                                      \
                K, N                                                                               \
            }                                                                                      \
        }                                                                                          \
    }

static const struct itera_bench_op cases[] = {
    {ITERA_OP_matmul, "512x3072x768", {.trans_b = 1}, MATMUL_NT(512, 3072, 768), 512},
    {ITERA_OP_matmul, "1024x1024x1024", {.trans_b = 1}, MATMUL_NT(1024, 1024, 1024), 1024},
    {ITERA_OP_matmul, "1024x256x64", {.trans_b = 1}, MATMUL_NT(1024, 256, 64), 1024},
    {ITERA_OP_matmul, "1024x64x128", {.trans_b = 1}, MATMUL_NT(1024, 64, 128), 1024},
    {ITERA_OP_matmul, "1024x8x128", {.trans_b = 1}, MATMUL_NT(1024, 8, 128), 1024},
    {ITERA_OP_matmul, "1024x2000x64", {.trans_b = 1}, MATMUL_NT(1024, 2000, 64), 1024},
    {ITERA_OP_matmul, "128x256x64", {.trans_b = 1}, MATMUL_NT(128, 256, 64), 128},
    {ITERA_OP_matmul, "128x8000x128", {.trans_b = 1}, MATMUL_NT(128, 8000, 128), 128},
    {ITERA_OP_matmul, "nn 1024x64x2000", {0}, MATMUL_NN(1024, 64, 2000), 1024},
    {ITERA_OP_matmul, "tn 256x64x1024", {.trans_a = 1}, MATMUL_TN(256, 64, 1024), 1024},
    {ITERA_OP_matmul, "tn 2000x64x1024", {.trans_a = 1}, MATMUL_TN(2000, 64, 1024), 1024},
    {ITERA_OP_matmul, "gemv 1x2000x64", {.trans_b = 1}, MATMUL_NT(1, 2000, 64), 1},
    {ITERA_OP_matmul, "gemv 1x8000x128", {.trans_b = 1}, MATMUL_NT(1, 8000, 128), 1},
    {ITERA_OP_matmul, "gemv 1x50280x768", {.trans_b = 1}, MATMUL_NT(1, 50280, 768), 1},
    {ITERA_OP_grouped_matmul,
     "2048x32x64, 4 experts",
     {.trans_b = 1, .experts = 4},
     {{"a", F32, 2, {2048, 64}}, {"b", F32, 3, {4, 32, 64}}, {"offsets", I32, 1, {5}}},
     1024,
     2048},
    {ITERA_OP_selective_scan, "1x512x1536x16", {.chunk = 64}, SELECTIVE(512, 1536, 16), 512},
    {ITERA_OP_selective_scan,
     "1x512x1536x16 sequential",
     {.chunk = 64, .variant = ITERA_SCAN_SEQUENTIAL},
     SELECTIVE(512, 1536, 16),
     512},
    {ITERA_OP_selective_scan,
     "1x512x1536x16 parallel",
     {.chunk = 64, .variant = ITERA_SCAN_PARALLEL},
     SELECTIVE(512, 1536, 16),
     512},
    {ITERA_OP_selective_scan,
     "1x512x1536x16 chunked",
     {.chunk = 64, .variant = ITERA_SCAN_CHUNKED},
     SELECTIVE(512, 1536, 16),
     512},
    {ITERA_OP_selective_scan, "1x512x256x16", {.chunk = 64}, SELECTIVE(512, 256, 16), 512},
    {ITERA_OP_selective_scan, "1x1x1536x16 (decode)", {.chunk = 64}, SELECTIVE(1, 1536, 16), 1},
    {ITERA_OP_ssd_scan,
     "48x64, state 128, 512 tokens",
     {.heads = 48, .groups = 1, .chunk = 64},
     SSD(512),
     512},
    {ITERA_OP_ssd_scan,
     "48x64, state 128, 512 tokens, sequential",
     {.heads = 48, .groups = 1, .chunk = 64, .variant = ITERA_SCAN_SEQUENTIAL},
     SSD(512),
     512},
    {ITERA_OP_ssd_scan,
     "48x64, state 128, 512 tokens, parallel",
     {.heads = 48, .groups = 1, .chunk = 64, .variant = ITERA_SCAN_PARALLEL},
     SSD(512),
     512},
    {ITERA_OP_ssd_scan,
     "48x64, state 128, 512 tokens, chunked",
     {.heads = 48, .groups = 1, .chunk = 64, .variant = ITERA_SCAN_CHUNKED},
     SSD(512),
     512},
    {ITERA_OP_ssd_scan,
     "48x64, state 128, 1 token",
     {.heads = 48, .groups = 1, .chunk = 64},
     SSD(1),
     1},
    {ITERA_OP_itera_scan,
     "8x128x8",
     {0},
     {{"d", F32, 3, {8, 128, 1}}, {"neg_A", F32, 1, {8}}, {"u", F32, 3, {8, 128, 8}}},
     1024},
    {ITERA_OP_linear_scan,
     "1x512x1536",
     {0},
     {{"a", F32, 3, {1, 512, 1536}}, {"b", F32, 3, {1, 512, 1536}}},
     512},
    {ITERA_OP_causal_conv1d,
     "1x512x1536, width 4, SiLU",
     {.act = ITERA_ACT_SILU},
     {{"x", F32, 3, {1, 512, 1536}}, {"weight", F32, 2, {1536, 4}}, {"bias", F32, 1, {1536}}},
     512},
    {ITERA_OP_layer_norm,
     "1024x128",
     {.eps = 1e-5f},
     {{"x", F32, 2, {1024, 128}}, {"weight", F32, 1, {128}}, {"bias", F32, 1, {128}}},
     1024},
    {ITERA_OP_rms_norm,
     "512x768",
     {.eps = 1e-5f},
     {{"x", F32, 2, {512, 768}}, {"weight", F32, 1, {768}}},
     512},
    {ITERA_OP_silu_mul,
     "512x1536",
     {0},
     {{"x", F32, 2, {512, 1536}}, {"z", F32, 2, {512, 1536}}},
     512},
    {ITERA_OP_softplus, "512x1536", {0}, {{"x", F32, 2, {512, 1536}}}, 512},
    {ITERA_OP_gelu, "1024x512", {0}, {{"x", F32, 2, {1024, 512}}}, 1024},
    {ITERA_OP_attention,
     "8x128, 4 heads of 32",
     {.heads = 4, .kv_heads = 4},
     {{"q", F32, 3, {8, 128, 128}}, {"k", F32, 3, {8, 128, 128}}, {"v", F32, 3, {8, 128, 128}}},
     1024},
    {ITERA_OP_cross_entropy,
     "1024x8000",
     {0},
     {{"logits", F32, 2, {1024, 8000}}, {"targets", I32, 1, {1024}}},
     1024,
     8000},
    {ITERA_OP_embedding,
     "1024 of 8000x128",
     {0},
     {{"table", F32, 2, {8000, 128}}, {"ids", I32, 1, {1024}}},
     1024,
     8000},
};

/* Products with weights of every type, as rows of their own: decoding and prefill of a model that
 * comes from memory, and of small ones. */
static const struct {
    int64_t m, n, k;
} weight_shapes[] = {{1, 50280, 768}, {1, 3072, 768}, {1, 768, 1536},
                     {1, 256, 64},    {8, 3072, 768}, {512, 3072, 768}};
static const struct {
    enum itera_dtype dtype;
    uint8_t integer;
} weight_types[] = {{ITERA_F16, 0}, {ITERA_BF16, 0}, {ITERA_Q8, 0},
                    {ITERA_Q4, 0},  {ITERA_Q8, 1},   {ITERA_Q4, 1}};
enum {
    SHAPES = sizeof weight_shapes / sizeof *weight_shapes,
    TYPES = sizeof weight_types / sizeof *weight_types,
    CASES = sizeof cases / sizeof *cases
};

/* Case i of all; label: 64 bytes that a made one's name is written to. */
static struct itera_bench_op case_of(int i, char *label)
{
    if (i < CASES)
        return cases[i];
    const int64_t m = weight_shapes[(i - CASES) / TYPES].m;
    const int64_t n = weight_shapes[(i - CASES) / TYPES].n;
    const int64_t k = weight_shapes[(i - CASES) / TYPES].k;
    const enum itera_dtype dtype = weight_types[(i - CASES) % TYPES].dtype;
    const uint8_t integer = weight_types[(i - CASES) % TYPES].integer;
    snprintf(label, 64, "%dx%dx%d %s%s", (int)m, (int)n, (int)k, itera_dtype_name(dtype),
             integer ? " integer" : "");
    return (struct itera_bench_op){ITERA_OP_matmul,
                                   label,
                                   {.trans_b = 1,
                                    .integer = integer, /* and as models run by default */
                                    .half = dtype == ITERA_F16 || integer},
                                   {{"a", F32, 2, {m, k}}, {"b", dtype, 2, {n, k}}},
                                   .tokens = m};
}

enum itera_status itera_bench_build_op(struct itera_device *device, const struct itera_bench_op *c,
                                       struct itera_bench_program *out, struct itera_cost *cost)
{
    struct itera_program *p;
    *out = (struct itera_bench_program){0};
    enum itera_status status = itera_program_create(&p);
    if (status)
        return status;
    const struct itera_op_info *info = itera_op_info(c->kind);
    int32_t in[ITERA_MAX_IN], result[ITERA_MAX_OUT];
    for (int i = 0; i < ITERA_MAX_IN; i++) {
        const struct itera_bench_input *x = &c->in[i];
        in[i] = x->name ? itera_bound(p, x->name, x->dtype, x->rank, x->dim) : ITERA_NONE;
    }
    for (int i = 0; i < ITERA_MAX_OUT; i++)
        result[i] = info->optional_out >> i & 1 ? ITERA_NONE : ITERA_NEW;
    itera_record(p, c->kind, &c->attr, in, result);
    if (!p->status)
        *cost = itera_op_cost(p, &p->ops[0]);
    return itera_bench_build(device, p, c->index_limit ? c->index_limit : 1, out);
}

/* The peer's run on the same shapes, with its own operands. */
struct blas_work {
    const struct itera_openblas *blas;
    int trans_a, trans_b, m, n, k, lda, ldb;
    const float *pa, *pb;
    float *pc;
};

static enum itera_status run_blas(void *user)
{
    struct blas_work *w = user;
    itera_openblas_sgemm(w->blas, w->trans_a, w->trans_b, w->m, w->n, w->k, w->pa, w->lda, w->pb,
                         w->ldb, w->pc);
    return ITERA_OK;
}

/* Host memory for the peer: it has no devices. */
static void blas_prepare(struct blas_work *w, const struct itera_bench_op *c,
                         const struct itera_openblas *blas, float *memory)
{
    *w = (struct blas_work){.blas = blas, .trans_a = c->attr.trans_a, .trans_b = c->attr.trans_b};
    const int64_t *a = c->in[0].dim, *b = c->in[1].dim;
    w->m = (int)(w->trans_a ? a[1] : a[0]);
    w->k = (int)(w->trans_a ? a[0] : a[1]);
    w->n = (int)(w->trans_b ? b[0] : b[1]);
    w->lda = (int)a[1];
    w->ldb = (int)b[1];
    int64_t na = a[0] * a[1], nb = b[0] * b[1];
    for (int64_t i = 0; i < na + nb; i++)
        memory[i] = 0.01f * (float)(i % 97);
    w->pa = memory;
    w->pb = memory + na;
    w->pc = memory + na + nb;
}

/* What an op's task is made of. */
struct content {
    struct itera_bench_program program;
    struct itera_openblas *blas;
    struct blas_work peer;
    float *memory; /* of the peer */
};

static void content_destroy(void *content)
{
    struct content *c = content;
    itera_bench_program_destroy(&c->program);
    itera_openblas_close(&c->blas);
    free(c->memory);
    free(c);
}

/* OpenBLAS beside an f32 matmul of the CPU, where it is installed. */
static enum itera_status add_peer(struct itera_bench_task *task, const struct itera_bench_op *op,
                                  struct content *c, const struct itera_cost *cost)
{
    if (task->device->info.type != ITERA_DEVICE_CPU || op->kind != ITERA_OP_matmul ||
        op->in[1].dtype != F32)
        return ITERA_OK;
    c->blas = itera_openblas_open(itera_device_threads(task->device));
    if (!c->blas)
        return ITERA_OK;
    c->memory = malloc((size_t)cost->bytes + sizeof *c->memory); /* every operand once */
    if (!c->memory)
        return itera_fail(ITERA_ERR_MEMORY, "no memory for the peer of a benchmark");
    blas_prepare(&c->peer, op, c->blas, c->memory);
    task->peer = (struct itera_bench_work){.run = run_blas, .user = &c->peer, .spins = true};
    task->has_peer = true;
    snprintf(task->row.peer, sizeof task->row.peer, "OpenBLAS %s", itera_openblas_core(c->blas));
    return ITERA_OK;
}

const char *itera_bench_op_name(int index, char *name, size_t size)
{
    char label[64];
    if (index < 0 || index >= CASES + SHAPES * TYPES)
        return NULL;
    const struct itera_bench_op op = case_of(index, label);
    snprintf(name, size, "%s %s", itera_op_info(op.kind)->name, op.label);
    return name;
}

enum itera_status itera_bench_task_op(struct itera_device *device, int index,
                                      struct itera_bench_task **out)
{
    char label[64];
    *out = NULL;
    if (index < 0 || index >= CASES + SHAPES * TYPES)
        return itera_fail(ITERA_ERR_ARGUMENT, "there is no op benchmark %d", index);
    const struct itera_bench_op op = case_of(index, label);
    struct itera_bench_task *task;
    struct itera_cost cost = {0};
    enum itera_status status = itera_bench_task_begin(device, &task);
    if (status)
        return status;
    struct content *c = calloc(1, sizeof *c);
    status = c ? itera_bench_build_op(device, &op, &c->program, &cost)
               : itera_fail(ITERA_ERR_MEMORY, "no memory for a benchmark");
    task->content = c;
    task->destroy = c ? content_destroy : NULL;
    if (!status) {
        struct itera_bench_row *row = &task->row;
        task->work = (struct itera_bench_work){.run = itera_bench_run_program,
                                               .user = c->program.executable};
        task->executable = c->program.executable;
        if (op.in[1].name && op.in[1].dtype != I32)
            snprintf(row->dtype, sizeof row->dtype, "%s", itera_dtype_name(op.in[1].dtype));
        snprintf(row->phase, sizeof row->phase, "op");
        snprintf(row->op, sizeof row->op, "%s", itera_op_info(op.kind)->name);
        snprintf(row->case_name, sizeof row->case_name, "%s", op.label);
        row->batch = 1;
        row->tokens = op.tokens;
        row->flops = cost.flops;
        row->bytes = cost.bytes;
        task->working_set = cost.bytes;
        status = add_peer(task, &op, c, &cost);
    }
    itera_bench_task_end(task);
    if (status)
        itera_bench_task_destroy(&task);
    *out = task;
    return status;
}
