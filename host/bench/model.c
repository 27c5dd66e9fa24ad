/* Benchmarks of whole models: forward, prefill, decode, training step, and where the time goes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/rng.h"
#include "itera/session.h"
#include "model/model.h"
#include "program/fuse.h"
#include "train/trainer_impl.h"

/* One phase of a model, compiled on buffers of its own. */
struct phase {
    struct itera_graph graph;
    struct itera_buffer *ids, *start, *states, *derived;
    struct itera_executable *executable;
};

static void phase_destroy(struct phase *f)
{
    itera_executable_destroy(&f->executable);
    itera_buffer_destroy(&f->ids);
    itera_buffer_destroy(&f->start);
    itera_buffer_destroy(&f->states);
    itera_buffer_destroy(&f->derived);
    itera_graph_destroy(&f->graph);
}

static enum itera_status random_ids(struct itera_buffer *buffer, int64_t n, int32_t vocab)
{
    int32_t *ids = malloc((size_t)n * sizeof *ids);
    if (!ids)
        return itera_fail(ITERA_ERR_MEMORY, "no memory for benchmark data");
    struct itera_rng rng = {.seed = 17};
    for (int64_t i = 0; i < n; i++)
        ids[i] = (int32_t)itera_rng_below(&rng, (uint32_t)vocab);
    enum itera_status status = itera_buffer_upload(buffer, 0, ids, (size_t)n * sizeof *ids);
    free(ids);
    return status;
}

static enum itera_status phase_create(struct itera_model *model, enum itera_phase phase,
                                      int64_t batch, int64_t tokens, struct phase *f)
{
    *f = (struct phase){.graph = {.phase = phase,
                                  .batch = batch,
                                  .time = tokens,
                                  .positions = model->config.max_positions}};
    struct itera_graph *g = &f->graph;
    struct itera_bindings b = {0};
    enum itera_status status = itera_graph_record(g, &model->config, &model->layout);
    if (!status)
        status = itera_fuse_forward(g->p);
    if (!status)
        status = itera_fuse_epilogues(g->p);
    if (!status)
        status = itera_buffer_create(model->device, (size_t)(batch * tokens) * 4, &f->ids);
    if (!status)
        status = random_ids(f->ids, batch * tokens, model->config.vocab);
    if (!status)
        status = itera_buffer_create(model->device, (size_t)batch * 4, &f->start);
    if (!status)
        status = itera_buffer_create(model->device, (size_t)g->state_bytes + 64, &f->states);
    if (!status)
        status = itera_buffer_create(model->device, (size_t)g->derived_bytes + 64, &f->derived);
    if (!status)
        status = itera_model_prepare(model, g, f->derived);
    if (status)
        goto done;
    itera_bind_graph(&b, g, model, f->states, f->derived);
    itera_bind(&b, g->ids, f->ids, 0);
    if (g->start >= 0)
        itera_bind(&b, g->start, f->start, 0);
    status = b.status;
    if (!status)
        status = itera_compile(model->device, g->p, b.list, b.n, &f->executable);
done:
    itera_bindings_free(&b);
    if (status)
        phase_destroy(f);
    return status;
}

/* The type of the weights: "mixed" when no type has nine tenths of the matrices. */
static const char *weight_type(const struct itera_layout *layout)
{
    int64_t elements[ITERA_DTYPE_COUNT] = {0}, all = 0;
    for (int i = 0; i < layout->n_params; i++) {
        const struct itera_param *param = &layout->params[i];
        int64_t n = param->matrix ? itera_shape_elements(&param->shape) : 0;
        elements[param->dtype] += n;
        all += n;
    }
    for (int k = 0; k < ITERA_DTYPE_COUNT; k++)
        if (10 * elements[k] >= 9 * all)
            return itera_dtype_name((enum itera_dtype)k);
    return "mixed";
}

static void label(struct itera_bench_row *row, const struct itera_model *model, const char *name,
                  const char *phase, int64_t batch, int64_t tokens)
{
    itera_bench_device(row, model->device);
    snprintf(row->dtype, sizeof row->dtype, "%s", weight_type(&model->layout));
    snprintf(row->phase, sizeof row->phase, "%s", phase);
    snprintf(row->op, sizeof row->op, "%s", name);
    snprintf(row->case_name, sizeof row->case_name, "%lldx%lld", (long long)batch,
             (long long)tokens);
    row->batch = batch;
    row->tokens = batch * tokens;
}

/* Times the work between two looks at how fast the machine is. */
static enum itera_status time_gauged(struct itera_device *device, struct itera_bench_work *work,
                                     const struct itera_bench_options *options, double *gflops)
{
    double before = itera_bench_gauge(device);
    enum itera_status status =
        itera_bench_time(work, 1, options->seconds > 0 ? options->seconds : 1);
    *gflops = (before + itera_bench_gauge(device)) / 2;
    return status;
}

static enum itera_status finish(struct itera_bench_row *row, struct itera_bench_work *work,
                                const struct itera_bench_options *options, double gflops,
                                double working_set, itera_bench_fn *fn, void *user)
{
    row->gemm_gflops = gflops;
    itera_bench_fill(row, work, &options->peaks, working_set);
    return fn(user, row) ? itera_fail(ITERA_ERR_CANCELLED, "the benchmark was stopped") : ITERA_OK;
}

static enum itera_status bench_phase(struct itera_model *model, const char *name,
                                     enum itera_phase phase, int64_t batch, int64_t tokens,
                                     const struct itera_bench_options *options, itera_bench_fn *fn,
                                     void *user)
{
    struct phase f;
    enum itera_status status = phase_create(model, phase, batch, tokens, &f);
    if (status)
        return status;
    double gflops = 0;
    struct itera_bench_work work = {itera_bench_run_program, f.executable};
    status = time_gauged(model->device, &work, options, &gflops);
    if (!status) {
        struct itera_bench_row row = {0};
        struct itera_cost cost = itera_program_cost(f.graph.p, NULL);
        label(&row, model, name, phase == ITERA_PHASE_EVAL ? "forward" : "prefill", batch, tokens);
        row.flops = cost.flops;
        /* The least traffic: every weight once. Activations may stay in caches. */
        row.bytes = (double)model->info.bytes;
        row.memory_bytes = f.executable->memory_bytes + f.states->bytes;
        status = finish(&row, &work, options, gflops, row.bytes, fn, user);
    }
    itera_bench_work_free(&work);
    phase_destroy(&f);
    return status;
}

/* One token of a session per run. */
struct decode {
    struct itera_session *session;
    int32_t *tokens;
};

static enum itera_status run_decode(void *user)
{
    struct decode *d = user;
    return itera_session_next(d->session, d->tokens);
}

static enum itera_status bench_decode(struct itera_model *model, const char *name, int64_t batch,
                                      const struct itera_bench_options *options, itera_bench_fn *fn,
                                      void *user)
{
    struct itera_session_options session_options = {.batch = (int32_t)batch};
    struct decode d = {.tokens = calloc((size_t)batch, sizeof *d.tokens)};
    double gflops = 0;
    struct itera_bench_work work = {run_decode, &d};
    struct phase f = {0};
    enum itera_status status = ITERA_OK;
    int32_t *prompt = calloc((size_t)batch, sizeof *prompt);
    if (!d.tokens || !prompt)
        status = itera_fail(ITERA_ERR_MEMORY, "no memory for benchmark data");
    if (!status)
        status = itera_session_create(model, &session_options, &d.session);
    if (!status)
        status = itera_session_warm(d.session, 1);
    if (!status)
        status = itera_session_prefill(d.session, prompt, 1);
    if (!status)
        status = time_gauged(model->device, &work, options, &gflops);
    /* The cost of a decode step, from its program. */
    if (!status)
        status = phase_create(model, ITERA_PHASE_INFER, batch, 1, &f);
    if (!status) {
        struct itera_bench_row row = {0};
        label(&row, model, name, "decode", batch, 1);
        row.flops = itera_program_cost(f.graph.p, NULL).flops;
        row.bytes = (double)model->info.active_bytes + 2 * (double)f.graph.state_bytes;
        if (!model->config.tied_head) { /* of the embedding, which comes first, one row is read */
            const struct itera_param *table = &model->layout.params[0];
            row.bytes -=
                (double)itera_dtype_bytes(table->dtype, itera_shape_elements(&table->shape));
        }
        row.memory_bytes = itera_session_bytes(d.session);
        status = finish(&row, &work, options, gflops, row.bytes, fn, user);
    }
    phase_destroy(&f);
    itera_bench_work_free(&work);
    itera_session_destroy(&d.session);
    free(d.tokens);
    free(prompt);
    return status;
}

enum itera_status itera_bench_model(struct itera_model *model, const char *name,
                                    const struct itera_bench_options *options, itera_bench_fn *fn,
                                    void *user)
{
    enum itera_status status = ITERA_OK;
    int64_t limit = model->config.max_positions;
    const unsigned phases = options->phases ? options->phases : ~0u;
    for (int b = 0; b < options->n_batches && !status; b++) {
        for (int i = 0; i < options->n_prompts && !status; i++) {
            int64_t tokens = options->prompts[i];
            if (limit && tokens > limit) {
                itera_log(ITERA_LOG_WARNING, "%s has %lld positions: no row for %lld tokens", name,
                          (long long)limit, (long long)tokens);
                continue;
            }
            if (phases & ITERA_BENCH_FORWARD)
                status = bench_phase(model, name, ITERA_PHASE_EVAL, options->batches[b], tokens,
                                     options, fn, user);
            if (!status && (phases & ITERA_BENCH_PREFILL))
                status = bench_phase(model, name, ITERA_PHASE_INFER, options->batches[b], tokens,
                                     options, fn, user);
        }
        if (!status && (phases & ITERA_BENCH_DECODE))
            status = bench_decode(model, name, options->batches[b], options, fn, user);
    }
    return status;
}

/* A training step on random tokens. */
static enum itera_status train_create(struct itera_model *model, int64_t batch, int64_t seq,
                                      struct itera_train_program *t)
{
    enum itera_status status =
        itera_train_program_create(model, batch, seq, 1, 0.1, ITERA_PRECISION_F32, NULL, t);
    if (status)
        return status;
    /* lr 1e-4, betas, eps, no bias correction, clip at 1: values that keep the weights sane. */
    static const float hyper[8] = {1e-4f, 0.9f, 0.95f, 1e-8f, 1, 1, 1, 1};
    status = itera_buffer_upload(t->hyper, 0, hyper, sizeof hyper);
    if (!status)
        status = random_ids(t->ids, batch * seq, model->config.vocab);
    if (!status)
        status = random_ids(t->targets, batch * seq, model->config.vocab);
    if (status)
        itera_train_program_destroy(t);
    return status;
}

enum itera_status itera_bench_train(struct itera_model *model, const char *name,
                                    const struct itera_bench_options *options, itera_bench_fn *fn,
                                    void *user)
{
    int64_t batch = options->train_batch, seq = options->train_seq;
    int64_t limit = model->config.max_positions;
    if (limit && seq > limit)
        return itera_fail(ITERA_ERR_ARGUMENT, "%s has %lld positions, too few for %lld tokens",
                          name, (long long)limit, (long long)seq);
    struct itera_train_program t;
    enum itera_status status = train_create(model, batch, seq, &t);
    if (status)
        return status;
    double gflops = 0;
    struct itera_bench_work work = {itera_bench_run_program, t.train_run};
    status = time_gauged(model->device, &work, options, &gflops);
    if (!status) {
        struct itera_bench_row row = {0};
        label(&row, model, name, "train", batch, seq);
        row.flops = itera_program_cost(t.train.p, NULL).flops;
        row.bytes = 7 * (double)model->info.bytes; /* AdamW reads four and writes three of them */
        row.memory_bytes = t.train_run->memory_bytes + 4 * (uint64_t)model->info.bytes;
        status = finish(&row, &work, options, gflops, row.bytes, fn, user);
    }
    itera_bench_work_free(&work);
    itera_train_program_destroy(&t);
    return status;
}

static int by_seconds(const void *a, const void *b)
{
    const struct itera_bench_part *x = a, *y = b;
    if (x->is_op != y->is_op)
        return x->is_op ? 1 : -1;
    return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

/* The row of this name, made when it is new. */
static struct itera_bench_part *part_named(struct itera_bench_part *parts, int *count, bool is_op,
                                           const char *name)
{
    for (int i = 0; i < *count; i++)
        if (parts[i].is_op == is_op && !strcmp(parts[i].name, name))
            return &parts[i];
    struct itera_bench_part *part = &parts[(*count)++];
    *part = (struct itera_bench_part){.is_op = is_op};
    snprintf(part->name, sizeof part->name, "%s", name);
    return part;
}

/* Sums the mean seconds of the ops of an executable into rows. */
static enum itera_status profile_rows(struct itera_executable *executable,
                                      const struct itera_program *p, struct itera_bench_part *parts,
                                      int *count)
{
    enum { MOST = 20, FEWEST = 2 };
    const double enough = 2; /* seconds */
    double *seconds = calloc((size_t)p->n_ops + 1, sizeof *seconds);
    double *total = calloc((size_t)p->n_ops + 1, sizeof *total);
    enum itera_status status = ITERA_OK;
    int runs = 0;
    if (!seconds || !total)
        status = itera_fail(ITERA_ERR_MEMORY, "no memory for a profile");
    if (!status)
        status = itera_profile(executable, seconds); /* warms up */
    double begin = itera_seconds();
    while (!status && runs < MOST && (runs < FEWEST || itera_seconds() - begin < enough)) {
        status = itera_profile(executable, seconds);
        for (int32_t i = 0; i < p->n_ops && !status; i++)
            total[i] += seconds[i];
        runs++;
    }
    for (int32_t i = 0; i < p->n_ops && !status; i++) {
        const struct itera_op *op = &p->ops[i];
        struct itera_cost cost = itera_op_cost(p, op);
        for (int is_op = 0; is_op < 2; is_op++) {
            const char *name = is_op ? itera_op_info(op->kind)->name : itera_part_name(op->part);
            struct itera_bench_part *part = part_named(parts, count, is_op, name);
            part->count++;
            part->seconds += total[i] / runs;
            part->flops += cost.flops;
            part->bytes += cost.bytes;
        }
    }
    free(seconds);
    free(total);
    qsort(parts, (size_t)*count, sizeof *parts, by_seconds);
    return status;
}

_Static_assert(ITERA_PART_COUNT + ITERA_OP_COUNT <= ITERA_BENCH_PARTS, "rows of a breakdown");

enum itera_status itera_bench_breakdown(struct itera_model *model, bool training, int64_t batch,
                                        int64_t tokens,
                                        struct itera_bench_part parts[ITERA_BENCH_PARTS],
                                        int *count)
{
    *count = 0;
    if (!training) {
        struct phase f;
        enum itera_status status = phase_create(model, ITERA_PHASE_EVAL, batch, tokens, &f);
        if (status)
            return status;
        status = profile_rows(f.executable, f.graph.p, parts, count);
        phase_destroy(&f);
        return status;
    }
    struct itera_train_program t;
    enum itera_status status = train_create(model, batch, tokens, &t);
    if (status)
        return status;
    status = profile_rows(t.train_run, t.train.p, parts, count);
    itera_train_program_destroy(&t);
    return status;
}
