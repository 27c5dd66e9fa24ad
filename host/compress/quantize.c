#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compress/block_fit.h"
#include "compress/calibrate.h"
#include "compress/quantize_rules.h"
#include "core/log.h"
#include "core/pool.h"
#include "itera/compress.h"
#include "text/tokenizer_impl.h"

enum { SPAN = 256 /* elements that are compared at once */, MAX_THREADS = 64 };

/* What a thread sums up over its rows. */
struct sums {
    double error, square, weighted_error, weighted_square, largest;
    bool too_large;
};

/* One part of a parameter, between flat buffers. */
struct job {
    const struct itera_param *param;
    enum itera_dtype stored;
    const float *from;       /* (rows, width) */
    const float *importance; /* (width), or NULL */
    void *to;                /* of the parameter */
    int64_t skip;            /* elements of the parameter before `from` */
    int64_t rows, width;
    bool plain;
    struct sums *sums; /* one per thread */
};

struct quantizer {
    struct itera_model *model, *made;
    const struct itera_quantize_options *options;
    struct itera_quantize_choice *choices;
    struct itera_calibration *calibration;
    struct itera_pool *pool;
    struct sums sums[MAX_THREADS];
    float *weights;    /* of the model: layout.elements */
    float *importance; /* of a parameter: (experts or 1, width) */
    uint8_t *packed;   /* of the new model: layout.bytes */
    int64_t done;      /* weights */
    int poor; /* parts whose error is far above what their type costs; the worst of them: */
    double poor_error;
    const char *poor_name, *poor_type;
};

/* The largest magnitude that a type holds. */
static float type_limit(enum itera_dtype type)
{
    switch (type) {
    case ITERA_F16:
        return 65504.0f;
    case ITERA_BF16:
        return 0x1.fep127f;
    case ITERA_Q8:
        return 65504.0f * 127;
    case ITERA_Q4:
        return 65504.0f * 8;
    default:
        return INFINITY;
    }
}

static float through_half(enum itera_dtype type, float x, uint16_t *half)
{
    *half = type == ITERA_F16 ? itera_f32_to_f16(x) : itera_f32_to_bf16(x);
    return type == ITERA_F16 ? itera_f16_to_f32(*half) : itera_bf16_to_f32(*half);
}

/* Converts n elements at `at` of the parameter; value gets what they are now. */
static void convert(const struct job *job, const float *from, const float *importance, int64_t at,
                    int64_t n, float *value)
{
    const enum itera_dtype type = job->param->dtype;
    if (itera_dtype_is_blocks(type)) {
        struct itera_blocks to =
            itera_blocks_at(type, job->to, itera_shape_elements(&job->param->shape), at);
        if (job->plain)
            itera_blocks_round(type, from, n, to);
        else
            itera_blocks_fit(type, from, importance, n, to);
        itera_blocks_expand(type, to, n, value);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        uint16_t half = 0;
        value[i] = job->stored == ITERA_F32 ? from[i] : through_half(job->stored, from[i], &half);
        if (type == ITERA_F32) /* as it will be when it is loaded */
            ((float *)job->to)[at + i] = value[i];
        else
            ((uint16_t *)job->to)[at + i] = half;
    }
}

static void compare(struct sums *sums, const float *x, const float *value, const float *importance,
                    int64_t n, float limit)
{
    for (int64_t i = 0; i < n; i++) {
        const double e = (double)x[i] - (double)value[i], error = e * e;
        const double square = (double)x[i] * (double)x[i];
        sums->error += error;
        sums->square += square;
        sums->largest = fmax(sums->largest, fabs(e));
        sums->too_large |= fabsf(x[i]) > limit;
        if (importance) {
            sums->weighted_error += (double)importance[i] * error;
            sums->weighted_square += (double)importance[i] * square;
        }
    }
}

static void run_job(void *user, struct itera_team *team)
{
    const struct job *job = user;
    const float limit = type_limit(job->stored);
    struct sums sums = {0};
    int64_t begin, end;
    itera_team_range(team, job->rows, 1, &begin, &end);
    for (int64_t row = begin; row < end; row++) {
        for (int64_t k = 0; k < job->width; k += SPAN) {
            const int64_t n = job->width - k < SPAN ? job->width - k : SPAN;
            const float *from = job->from + row * job->width + k;
            const float *importance = job->importance ? job->importance + k : NULL;
            float value[SPAN];
            convert(job, from, importance, job->skip + row * job->width + k, n, value);
            compare(&sums, from, value, importance, n, limit);
        }
    }
    job->sums[team->rank] = sums;
}

/* v[k] = E[a[k]^2] / mean of it + DAMPING: what a weight's error does to the output, by the inputs
 * of its product. Channels that were silent on the calibration text keep a say. */
static bool set_importance(struct quantizer *q, int param)
{
    static const double DAMPING = 0.01;
    const float *square = q->calibration ? q->calibration->square[param] : NULL;
    if (!square)
        return false;
    const struct itera_param *p = &q->model->layout.params[param];
    const int64_t width = itera_shape_cols(&p->shape), experts = p->experts ? p->experts : 1;
    for (int64_t e = 0; e < experts; e++) {
        double sum = 0;
        for (int64_t k = 0; k < width; k++)
            sum += (double)square[e * width + k];
        const double mean = sum / (double)width;
        for (int64_t k = 0; k < width; k++) {
            double v = mean > 0 ? (double)square[e * width + k] / mean : 1;
            q->importance[e * width + k] = (float)(v + DAMPING);
        }
    }
    return true;
}

static double ratio_of_roots(double error, double square)
{
    return square > 0 ? sqrt(error / square) : error > 0 ? INFINITY : 0;
}

static void report(const struct quantizer *q, int index, const struct itera_param_part *part,
                   int64_t elements, const struct sums *sums, bool weighted)
{
    const enum itera_dtype from = q->model->layout.params[index].stored;
    const struct itera_quantize_choice *choice = &q->choices[index];
    const struct itera_quantize_tensor tensor = {
        .name = part->name,
        .rank = part->rank,
        .dim = part->dim,
        .from = itera_dtype_name(from),
        .to = itera_dtype_name(choice->stored),
        .asked = itera_dtype_name(choice->asked),
        .elements = elements,
        .bytes_from = (int64_t)itera_dtype_bytes(from, elements),
        .bytes_to = (int64_t)itera_dtype_bytes(choice->stored, elements),
        .rms_error = ratio_of_roots(sums->error, sums->square),
        .max_error = sums->largest,
        .weighted_error =
            weighted ? ratio_of_roots(sums->weighted_error, sums->weighted_square) : (double)NAN,
    };
    q->options->tensor(q->options->user, &tensor);
}

/* The root mean square error, relative to the weights', that no tensor within the type's range has:
 * blocks of one large weight and 31 of half a step each come to 1.3% in q8 and to 20% in q4, f16 and
 * bf16 round by 2^-11 and 2^-8 at most. What is above has weights, or scales, below f16's range. */
static double most_error(enum itera_dtype type)
{
    switch (type) {
    case ITERA_F16:
        return 0.001;
    case ITERA_BF16:
        return 0.005;
    case ITERA_Q8:
        return 0.025;
    case ITERA_Q4:
        return 0.25;
    default:
        return INFINITY;
    }
}

/* Converts a part of `param`, which has the model's shape and offsets, into `to`. */
static struct sums convert_part(struct quantizer *q, const struct itera_param *param, int part,
                                void *to, bool weighted, bool plain)
{
    const struct itera_param_part *p = &param->parts[part];
    const int64_t elements = itera_shape_elements(&param->shape) / param->n_parts;
    const int64_t width = itera_shape_cols(&param->shape);
    const int64_t expert = param->experts ? part / (param->n_parts / param->experts) : 0;
    struct job job = {
        .param = param,
        .stored = param->stored,
        .from = q->weights + p->offset,
        .importance = weighted ? q->importance + expert * width : NULL,
        .to = to,
        .skip = p->offset - param->offset,
        .rows = elements / width,
        .width = width,
        .plain = plain,
        .sums = q->sums,
    };
    itera_pool_run(q->pool, run_job, &job);
    struct sums sums = {0};
    for (int i = 0; i < itera_pool_threads(q->pool); i++) {
        sums.error += q->sums[i].error;
        sums.square += q->sums[i].square;
        sums.weighted_error += q->sums[i].weighted_error;
        sums.weighted_square += q->sums[i].weighted_square;
        sums.largest = fmax(sums.largest, q->sums[i].largest);
        sums.too_large |= q->sums[i].too_large;
    }
    return sums;
}

static enum itera_status quantize_part(struct quantizer *q, int index, int part, bool weighted)
{
    const struct itera_param *param = &q->made->layout.params[index];
    const struct itera_param_part *p = &param->parts[part];
    const int64_t elements = itera_shape_elements(&param->shape) / param->n_parts;
    const struct sums sums =
        convert_part(q, param, part, q->packed + param->place, weighted, q->options->plain);
    const double rms_error = ratio_of_roots(sums.error, sums.square);
    if (rms_error > most_error(param->stored)) {
        q->poor++;
        if (rms_error > q->poor_error) {
            q->poor_error = rms_error;
            q->poor_name = q->model->layout.params[index].parts[part].name;
            q->poor_type = itera_dtype_name(param->stored);
        }
    }
    if (sums.too_large)
        return itera_fail(ITERA_ERR_LIMIT, "%s has weights too large for %s (above %g)", p->name,
                          itera_dtype_name(param->stored), (double)type_limit(param->stored));
    if (q->options->tensor)
        report(q, index, p, elements, &sums, weighted);
    q->done += elements;
    const struct itera_quantize_options *o = q->options;
    if (o->progress && o->progress(o->user, q->done, q->made->layout.parameters))
        return itera_fail(ITERA_ERR_CANCELLED, "quantising was stopped");
    return ITERA_OK;
}

static enum itera_dtype wider(enum itera_dtype type)
{
    return type == ITERA_Q4 ? ITERA_Q8 : type == ITERA_Q8 ? ITERA_F16 : ITERA_F32;
}

/* Whether some part of a parameter would have an error far above what the type costs. Scratch has
 * room for it in f32. */
static bool is_poor(struct quantizer *q, int index, enum itera_dtype type, void *scratch)
{
    struct itera_param param = q->model->layout.params[index];
    param.stored = type;
    param.dtype = param.matrix ? type : ITERA_F32;
    for (int k = 0; k < param.n_parts; k++) {
        for (int plain = 1; plain >= 0; plain--) { /* the search costs more, and is nearer */
            const struct sums sums = convert_part(q, &param, k, scratch, false, plain);
            if (ratio_of_roots(sums.error, sums.square) <= most_error(type))
                break;
            if (!plain || q->options->plain)
                return true;
        }
    }
    return false;
}

/* mixed: each type is kept only where it does what it does elsewhere, unless a rule of the caller
 * names it. */
static enum itera_status widen(struct quantizer *q)
{
    const struct itera_layout *layout = &q->model->layout;
    int64_t most = 0;
    for (int i = 0; i < layout->n_params; i++) {
        const int64_t n = itera_shape_elements(&layout->params[i].shape);
        most = n > most ? n : most;
    }
    float *scratch = malloc((size_t)most * sizeof *scratch);
    if (!scratch)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to choose types of weights");
    for (int i = 0; i < layout->n_params; i++) {
        struct itera_quantize_choice *choice = &q->choices[i];
        enum itera_dtype type = choice->stored;
        while (!choice->named && type != ITERA_F32 && is_poor(q, i, type, scratch))
            type = wider(type);
        if (type == choice->stored)
            continue;
        choice->stored = type;
        choice->dtype = layout->params[i].matrix ? type : ITERA_F32;
    }
    free(scratch);
    return ITERA_OK;
}

/* What widen needs, before the new model's types are known. */
static enum itera_status read_weights(struct quantizer *q)
{
    const struct itera_layout *layout = &q->model->layout;
    q->weights = malloc((size_t)layout->elements * sizeof *q->weights);
    if (!q->weights)
        return itera_fail(ITERA_ERR_MEMORY, "no memory for %lld weights to quantise",
                          (long long)layout->elements);
    const int threads = q->options->threads > 0 ? q->options->threads : itera_processor_count();
    enum itera_status status =
        itera_pool_create(threads < MAX_THREADS ? threads : MAX_THREADS, &q->pool);
    return status ? status : itera_model_read_f32(q->model, q->weights);
}

static enum itera_status allocate(struct quantizer *q)
{
    const struct itera_layout *layout = &q->model->layout;
    const size_t n = (size_t)layout->n_params + 1;
    enum itera_dtype *dtypes = calloc(2 * n, sizeof *dtypes);
    if (!dtypes)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to quantise a model");
    size_t widest = 1;
    for (int i = 0; i < layout->n_params; i++) {
        const struct itera_param *param = &layout->params[i];
        const size_t width = (size_t)itera_shape_cols(&param->shape);
        const size_t inputs = width * (size_t)(param->experts ? param->experts : 1);
        widest = inputs > widest ? inputs : widest;
        dtypes[i] = q->choices[i].dtype;
        dtypes[n + (size_t)i] = q->choices[i].stored;
    }
    enum itera_status status = itera_model_allocate_like(q->model->device, &q->model->config,
                                                         dtypes, dtypes + n, &q->made);
    free(dtypes);
    if (status)
        return status;
    q->made->layout.integer = q->model->layout.integer;
    q->made->layout.half = q->model->layout.half;
    q->importance = malloc(widest * sizeof *q->importance);
    q->packed = calloc((size_t)q->made->layout.bytes, 1);
    return q->importance && q->packed
               ? ITERA_OK
               : itera_fail(ITERA_ERR_MEMORY, "no memory for %lld weights to quantise",
                            (long long)layout->elements);
}

static enum itera_status run(struct quantizer *q)
{
    enum itera_status status = ITERA_OK;
    for (int i = 0; i < q->made->layout.n_params && !status; i++) {
        const bool weighted = set_importance(q, i);
        for (int k = 0; k < q->made->layout.params[i].n_parts && !status; k++)
            status = quantize_part(q, i, k, weighted);
    }
    if (q->poor && !status)
        itera_log(
            ITERA_LOG_WARNING,
            "%d tensor%s an error far above what %s, most of all %s: %.3g%% in %s. Weights this "
            "small are below the range of f16 and of f16 scales; the rule '%s=f32' keeps them",
            q->poor, q->poor == 1 ? " has" : "s have",
            q->poor == 1 ? "its type costs" : "their types cost", q->poor_name, 100 * q->poor_error,
            q->poor_type, q->poor_name);
    if (!status)
        status = itera_buffer_upload(q->made->weights, 0, q->packed, (size_t)q->made->layout.bytes);
    struct itera_tokenizer *tokenizer = NULL;
    if (!status)
        status = itera_tokenizer_copy(q->model->tokenizer, "the model's tokenizer", &tokenizer);
    if (!status && tokenizer) {
        status = itera_model_set_tokenizer(q->made, tokenizer);
        if (status)
            itera_tokenizer_destroy(&tokenizer);
    }
    return status;
}

enum itera_status itera_quantize(struct itera_model *model,
                                 const struct itera_quantize_options *options,
                                 struct itera_model **out)
{
    static const struct itera_quantize_options defaults;
    *out = NULL;
    if (!options)
        options = &defaults;
    const char *to = options->to ? options->to : "mixed";
    if (itera_model_is_quantised(model))
        return itera_fail(ITERA_ERR_UNSUPPORTED,
                          "the model is quantised already (it has q8 or q4 weights): quantise the "
                          "one that it was made from");
    struct quantizer q = {.model = model, .options = options};
    q.choices = calloc((size_t)model->layout.n_params + 1, sizeof *q.choices);
    enum itera_status status =
        q.choices
            ? itera_quantize_choose(&model->layout, to, options->set, options->n_set, q.choices)
            : itera_fail(ITERA_ERR_MEMORY, "no memory to quantise a model");
    if (!status && options->calibration) {
        const struct itera_calibrate_options calibrate = {
            .tokens = options->calibration_tokens,
            .progress = options->calibrating,
            .user = options->user,
        };
        status = itera_calibrate(model, options->calibration, &calibrate, &q.calibration);
    }
    if (!status)
        status = read_weights(&q);
    if (!status && !strcmp(to, "mixed"))
        status = widen(&q);
    if (!status)
        status = allocate(&q);
    if (!status)
        status = run(&q);
    itera_pool_destroy(&q.pool);
    itera_calibration_destroy(&q.calibration);
    free(q.choices);
    free(q.weights);
    free(q.importance);
    free(q.packed);
    if (status)
        itera_model_destroy(&q.made);
    *out = q.made;
    return status;
}
