/* Pruning: chooses by calibration which experts and channels stay, and has surgery.c cut. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/calibrate.h"
#include "compress/surgery.h"
#include "core/log.h"
#include "core/number.h"
#include "itera/compress.h"

enum { BLOCK = 32 }; /* of q8 and q4 weights */

/* ---- sizes ----------------------------------------------------------------------------------- */

/* P% of `now`, as the nearest number of whole blocks, unless that is all there is. */
static int64_t share_of(int64_t now, double percent)
{
    int64_t exact = llround((double)now * percent / 100);
    int64_t blocks = (exact + BLOCK / 2) / BLOCK * BLOCK;
    if (blocks < BLOCK)
        blocks = BLOCK;
    return exact >= now || blocks >= now ? exact : blocks;
}

/* Reads a size for a part of which there are `now`, and at least `least` have to stay; `why` says
 * what asks for so many. */
static enum itera_status read_size(const char *part, const char *text, int32_t now, int32_t least,
                                   const char *why, bool in_blocks, int32_t *size)
{
    char *end;
    double number = itera_read_number(text, &end);
    bool percent = end != text && *end == '%';
    if (end == text || end[percent] || !isfinite(number) || (!percent && number != floor(number)))
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "%s: \"%.40s\" is neither a number nor a percentage such as 50%%; the "
                          "model has %d",
                          part, text, now);
    double keep = number;
    if (percent && number >= 0 && number <= 100)
        keep = in_blocks ? (double)share_of(now, number) : round(now * number / 100);
    if (!(keep >= least && keep <= now) || (percent && number > 100))
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "%s: cannot keep %.40s of %d; from %d%s to %d can be kept", part, text,
                          now, least, why, now);
    *size = (int32_t)keep;
    return ITERA_OK;
}

/* Says when narrow weights will not fit what is left. */
static void note_blocks(const char *part, int32_t size, int32_t now)
{
    if (size < now && size % BLOCK)
        itera_log(ITERA_LOG_INFO,
                  "%s: keeping %d, which is not a multiple of %d, the block of q8 and q4 weights",
                  part, size, BLOCK);
}

static bool has_router(const struct itera_config *c)
{
    for (int l = 0; l < c->layers; l++)
        if (c->moe[l])
            return true;
    return false;
}

static enum itera_status refuse_part(const struct itera_config *c, const char *part)
{
    return itera_fail(ITERA_ERR_ARGUMENT, "%s: a model of family %s has none of them", part,
                      itera_architecture_name(c->architecture));
}

enum itera_status itera_prune_plan(const struct itera_model *model,
                                   const struct itera_prune_options *options,
                                   struct itera_prune_sizes *sizes)
{
    static const struct itera_prune_options defaults;
    if (!options)
        options = &defaults;
    const struct itera_config *c = &model->config;
    const char *ffn = options->ffn, *inner = options->inner;
    enum itera_status status = ITERA_OK;
    *sizes = (struct itera_prune_sizes){
        .experts = has_router(c) ? c->experts : 0, .ffn = c->ffn, .inner = c->inner};
    struct itera_prune_sizes now = *sizes;
    if (options->channels) {
        size_t length = strlen(options->channels);
        if (!length || options->channels[length - 1] != '%')
            return itera_fail(ITERA_ERR_ARGUMENT,
                              "channels: \"%.40s\" is no percentage such as 50%%",
                              options->channels);
        ffn = ffn || !c->ffn ? ffn : options->channels;
        inner = inner || !c->inner ? inner : options->channels;
    }
    if (options->experts) {
        /* The load-balance loss needs two. */
        char why[64];
        int32_t least = c->top_k > 2 ? c->top_k : 2;
        snprintf(why, sizeof why, " (a token goes to %d)", c->top_k);
        if (!now.experts)
            return refuse_part(c, "experts");
        status =
            read_size("experts", options->experts, now.experts, least, why, false, &sizes->experts);
    }
    if (!status && ffn)
        status = now.ffn
                     ? read_size("feed-forward channels", ffn, now.ffn, 1, "", true, &sizes->ffn)
                     : refuse_part(c, "feed-forward channels");
    if (!status && inner)
        status = now.inner
                     ? read_size("inner channels", inner, now.inner, 1, "", true, &sizes->inner)
                     : refuse_part(c, "inner channels");
    if (!status && sizes->experts == now.experts && sizes->ffn == now.ffn &&
        sizes->inner == now.inner)
        status = itera_fail(ITERA_ERR_ARGUMENT,
                            "nothing would be removed: all experts and channels are kept");
    return status;
}

/* ---- what stays ------------------------------------------------------------------------------ */

struct pruner {
    struct itera_model *model;
    const struct itera_calibration *calibration;
    const struct itera_config *config; /* of the new model */
    float *weights;
    struct itera_arena *arena; /* of the lists */
    struct itera_keep *keep;
    struct itera_prune_report *report;
};

struct candidate {
    double score;
    int32_t index;
};

static int by_score(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? 1 : -1;
    return x->index < y->index ? -1 : 1;
}

static int by_number(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* The `count` highest of n scores, the lower number first among equals, rising; *share: of the sum
 * of all scores. */
static enum itera_status choose(struct pruner *p, const double *score, int32_t n, int32_t count,
                                int32_t *list, double *share)
{
    struct candidate *all = itera_arena_calloc(p->arena, (size_t)n, sizeof *all);
    if (!all)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to prune a model");
    double total = 0, kept = 0;
    for (int32_t i = 0; i < n; i++) {
        all[i] = (struct candidate){score[i], i};
        total += score[i];
    }
    qsort(all, (size_t)n, sizeof *all, by_score);
    for (int32_t i = 0; i < count; i++) {
        list[i] = all[i].index;
        kept += all[i].score;
    }
    qsort(list, (size_t)count, sizeof *list, by_number);
    *share = total > 0 ? kept / total : 1;
    return ITERA_OK;
}

/* The parameter of a layer whose name ends so, or -1. */
static int find_param(const struct itera_model *m, int layer, const char *ending)
{
    size_t tail = strlen(ending);
    for (int i = 0; i < m->layout.n_params; i++) {
        const char *name = m->layout.params[i].name;
        size_t length = strlen(name);
        if (length >= tail && !strcmp(name + length - tail, ending) &&
            itera_param_layer(name) == layer)
            return i;
    }
    return -1;
}

/* The importance of each input of a projection (or of one of its experts): E[x^2] times the squared
 * norm of its column, which is the expected square of what it adds to the output. NULL: no memory. */
static double *importances(struct pruner *p, int param, int64_t expert)
{
    const struct itera_param *w = &p->model->layout.params[param];
    int64_t rows = w->shape.dim[w->shape.rank - 2], cols = itera_shape_cols(&w->shape);
    const float *weight = p->weights + w->offset + expert * rows * cols;
    const float *square = p->calibration->square[param] + expert * cols;
    double *score = itera_arena_calloc(p->arena, (size_t)cols, sizeof *score);
    for (int64_t c = 0; score && c < cols; c++) {
        double norm = 0;
        for (int64_t r = 0; r < rows; r++)
            norm += (double)weight[r * cols + c] * (double)weight[r * cols + c];
        score[c] = norm * (double)square[c];
    }
    return score;
}

static enum itera_status keep_experts(struct pruner *p, int layer)
{
    struct itera_prune_layer *report = &p->report->layers[layer];
    const float *share = p->calibration->share[layer];
    if (!share)
        return ITERA_OK;
    int32_t now = p->model->config.experts, count = p->config->experts;
    double *score = itera_arena_calloc(p->arena, (size_t)now, sizeof *score);
    int32_t *list = itera_arena_calloc(p->arena, (size_t)count, sizeof *list);
    int32_t *kept = malloc((size_t)count * sizeof *kept);
    report->kept = kept;
    if (!score || !list || !kept)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to prune a model");
    for (int32_t e = 0; e < now; e++)
        score[e] = (double)share[e];
    enum itera_status status = choose(p, score, now, count, list, &report->routed);
    memcpy(kept, list, (size_t)count * sizeof *kept);
    report->experts = count;
    p->keep[layer].experts = list;
    return status;
}

static enum itera_status keep_ffn(struct pruner *p, int layer)
{
    struct itera_prune_layer *report = &p->report->layers[layer];
    int32_t now = p->model->config.ffn, count = p->config->ffn;
    int down = find_param(p->model, layer, ".w2.weight");
    if (down < 0)
        down = find_param(p->model, layer, ".down_proj.weight");
    if (down < 0)
        return ITERA_OK;
    report->ffn = 1;
    if (count == now)
        return ITERA_OK;
    const int32_t *experts = p->keep[layer].experts;
    const float *routing = p->calibration->share[layer];
    int32_t blocks = experts ? p->config->experts : 1;
    int32_t *list = itera_arena_calloc(p->arena, (size_t)blocks * (size_t)count, sizeof *list);
    double kept = 0, total = 0;
    if (!list)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to prune a model");
    for (int32_t b = 0; b < blocks; b++) {
        int32_t expert = experts ? experts[b] : 0;
        double share, weight = experts ? (double)routing[expert] : 1;
        double *score = importances(p, down, expert);
        if (!score)
            return itera_fail(ITERA_ERR_MEMORY, "no memory to prune a model");
        enum itera_status status = choose(p, score, now, count, list + (int64_t)b * count, &share);
        if (status)
            return status;
        kept += weight * share;
        total += weight;
    }
    report->ffn = total > 0 ? kept / total : 1;
    p->keep[layer].ffn = list;
    return ITERA_OK;
}

/* ---- the steps of itera ----------------------------------------------------------------------
 * Its step is the mean of s[c] = softplus(delta_proj x)[c] over all channels c. A subset S whose
 * mean stays close is a small || sum over S of (s - mean) ||, with products over the calibration
 * text; it is found greedily (kernel herding; Chen, Welling & Smola 2010) and then by exchanges, on
 * whichever of the kept and the removed is the smaller set: the sum over all is 0, so that both have
 * the same norm. */

/* centred[i][j] = E[(s[i] - mean)(s[j] - mean)] from products[i][j] = E[s[i] s[j]]; the mean square
 * of the step. */
static double centre(const float *products, int32_t n, double *centred)
{
    double all = 0;
    for (int32_t i = 0; i < n; i++) {
        double row = 0;
        for (int32_t j = 0; j < n; j++)
            row += (double)products[(int64_t)i * n + j] / n;
        centred[(int64_t)n * n + i] = row; /* E[s[i] mean] */
        all += row / n;
    }
    const double *row = centred + (int64_t)n * n;
    for (int32_t i = 0; i < n; i++)
        for (int32_t j = 0; j < n; j++)
            centred[(int64_t)i * n + j] =
                (double)products[(int64_t)i * n + j] - row[i] - row[j] + all;
    return all;
}

/* Marks `count` of n whose centred sum is small. with[c] is the product of c and that sum. */
static void herd(const double *centred, int32_t n, int32_t count, double *with, bool *chosen)
{
    memset(with, 0, (size_t)n * sizeof *with);
    for (int32_t k = 0; k < count; k++) {
        int32_t best = -1;
        double least = INFINITY;
        for (int32_t c = 0; c < n; c++) {
            double change = centred[(int64_t)c * n + c] + 2 * with[c];
            if (!chosen[c] && change < least) {
                least = change;
                best = c;
            }
        }
        chosen[best] = true;
        for (int32_t c = 0; c < n; c++)
            with[c] += centred[(int64_t)best * n + c];
    }
}

/* Exchanges a marked for an unmarked one, the best such pair each time, as long as the sum gets
 * smaller; returns its squared norm. */
static double exchange(const double *centred, int32_t n, double *with, bool *chosen)
{
    for (int32_t round = 0; round < n; round++) {
        int32_t in = -1, out = -1;
        double least = 0;
        for (int32_t i = 0; i < n; i++) {
            if (!chosen[i])
                continue;
            const double *row = centred + (int64_t)i * n;
            for (int32_t j = 0; j < n; j++) {
                double change =
                    centred[(int64_t)j * n + j] + row[i] - 2 * row[j] + 2 * (with[j] - with[i]);
                if (!chosen[j] && change < least) {
                    least = change;
                    out = i;
                    in = j;
                }
            }
        }
        if (in < 0)
            break;
        chosen[in] = true;
        chosen[out] = false;
        for (int32_t c = 0; c < n; c++)
            with[c] += centred[(int64_t)in * n + c] - centred[(int64_t)out * n + c];
    }
    double norm = 0;
    for (int32_t c = 0; c < n; c++)
        norm += chosen[c] ? with[c] : 0;
    return fmax(norm, 0);
}

/* A row of delta_proj loses the channels that go; their mean contribution stays, in its bias. */
static void correct_bias(const struct pruner *p, int layer, int weight, int bias, float *corrected)
{
    int32_t now = p->model->config.inner, count = p->config->inner;
    const float *w = p->weights + p->model->layout.params[weight].offset;
    const float *b = p->weights + p->model->layout.params[bias].offset;
    const float *mean = p->calibration->mean[weight];
    const struct itera_keep *keep = &p->keep[layer];
    for (int32_t r = 0; r < count; r++) {
        const float *row = w + (int64_t)keep->steps[r] * now;
        double sum = (double)b[keep->steps[r]];
        for (int32_t c = 0; c < now; c++)
            sum += (double)row[c] * (double)mean[c];
        for (int32_t c = 0; c < count; c++)
            sum -= (double)row[keep->inner[c]] * (double)mean[keep->inner[c]];
        corrected[r] = (float)sum;
    }
}

static enum itera_status keep_steps(struct pruner *p, int layer)
{
    struct itera_keep *keep = &p->keep[layer];
    int weight = find_param(p->model, layer, "delta_proj.weight");
    int bias = find_param(p->model, layer, "delta_proj.bias");
    if (weight < 0 || bias < 0)
        return ITERA_OK;
    int32_t now = p->model->config.inner, count = p->config->inner;
    bool removing = count > now / 2;
    double *centred = malloc(((size_t)now + 2) * (size_t)now * sizeof *centred);
    bool *chosen = itera_arena_calloc(p->arena, (size_t)now, sizeof *chosen);
    keep->steps = itera_arena_calloc(p->arena, (size_t)count, sizeof *keep->steps);
    keep->step_bias = itera_arena_calloc(p->arena, (size_t)count, sizeof *keep->step_bias);
    if (!centred || !chosen || !keep->steps || !keep->step_bias) {
        free(centred);
        return itera_fail(ITERA_ERR_MEMORY, "no memory to prune a model");
    }
    double square = centre(p->calibration->steps[layer], now, centred);
    double *with = centred + ((int64_t)now + 1) * now;
    herd(centred, now, removing ? now - count : count, with, chosen);
    double norm = exchange(centred, now, with, chosen);
    int32_t n = 0;
    for (int32_t c = 0; c < now; c++)
        if (chosen[c] != removing)
            keep->steps[n++] = c;
    p->report->layers[layer].step_error = sqrt(norm / fmax(square, 1e-300)) / count;
    correct_bias(p, layer, weight, bias, keep->step_bias);
    free(centred);
    return ITERA_OK;
}

static enum itera_status keep_inner(struct pruner *p, int layer)
{
    struct itera_prune_layer *report = &p->report->layers[layer];
    int32_t now = p->model->config.inner, count = p->config->inner;
    if (!now)
        return ITERA_OK;
    report->inner = 1;
    if (count == now)
        return ITERA_OK;
    int32_t *list = itera_arena_calloc(p->arena, (size_t)count, sizeof *list);
    double *score = importances(p, find_param(p->model, layer, ".out_proj.weight"), 0);
    if (!list || !score)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to prune a model");
    enum itera_status status = choose(p, score, now, count, list, &report->inner);
    p->keep[layer].inner = list;
    return status ? status : keep_steps(p, layer);
}

/* ---- pruning --------------------------------------------------------------------------------- */

static void fill_sizes(const struct itera_model *m, struct itera_prune_sizes *sizes)
{
    const struct itera_config *c = &m->config;
    *sizes = (struct itera_prune_sizes){.experts = has_router(c) ? c->experts : 0,
                                        .ffn = c->ffn,
                                        .inner = c->inner,
                                        .parameters = m->info.parameters,
                                        .bytes = m->info.bytes,
                                        .flops_per_token = m->info.flops_per_token};
}

void itera_prune_report_destroy(struct itera_prune_report **report)
{
    struct itera_prune_report *r = *report;
    if (!r)
        return;
    for (int i = 0; r->layers && i < r->n_layers; i++)
        free((void *)r->layers[i].kept);
    free(r->layers);
    free(r);
    *report = NULL;
}

static enum itera_status create_report(const struct itera_model *m, int64_t tokens,
                                       struct itera_prune_report **out)
{
    struct itera_prune_report *r = calloc(1, sizeof *r);
    if (r)
        r->layers = calloc((size_t)m->config.layers, sizeof *r->layers);
    *out = r;
    if (!r || !r->layers)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to prune a model");
    r->tokens = tokens;
    r->n_layers = m->config.layers;
    for (int l = 0; l < r->n_layers; l++)
        r->layers[l] = (struct itera_prune_layer){.routed = (double)NAN,
                                                  .ffn = (double)NAN,
                                                  .inner = (double)NAN,
                                                  .step_error = (double)NAN};
    fill_sizes(m, &r->before);
    return ITERA_OK;
}

static enum itera_status prune(struct pruner *p, struct itera_model **out)
{
    struct itera_model *m = p->model;
    p->arena = itera_arena_create(0);
    p->weights = malloc((size_t)m->layout.elements * sizeof *p->weights);
    if (p->arena)
        p->keep = itera_arena_calloc(p->arena, (size_t)m->config.layers, sizeof *p->keep);
    if (!p->arena || !p->weights || !p->keep)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to prune a model");
    enum itera_status status = itera_model_read_f32(m, p->weights);
    for (int l = 0; l < m->config.layers && !status; l++) {
        status = keep_experts(p, l);
        if (!status)
            status = keep_ffn(p, l);
        if (!status)
            status = keep_inner(p, l);
    }
    if (!status)
        status = itera_model_shrink(m, p->config, p->keep, out);
    if (!status)
        fill_sizes(*out, &p->report->after);
    return status;
}

enum itera_status itera_prune(struct itera_model *model, const struct itera_dataset *data,
                              const struct itera_prune_options *options, struct itera_model **out,
                              struct itera_prune_report **report)
{
    static const struct itera_prune_options defaults;
    *out = NULL;
    *report = NULL;
    if (!options)
        options = &defaults;
    struct itera_prune_sizes sizes;
    if (itera_model_is_quantised(model))
        return itera_fail(ITERA_ERR_UNSUPPORTED,
                          "the model is quantised: prune first, then quantise what is left");
    enum itera_status status = itera_prune_plan(model, options, &sizes);
    if (status)
        return status;
    note_blocks("feed-forward channels", sizes.ffn, model->config.ffn);
    note_blocks("inner channels", sizes.inner, model->config.inner);
    struct itera_config config = model->config;
    if (sizes.experts)
        config.experts = sizes.experts;
    config.ffn = sizes.ffn;
    if (config.expert_size)
        config.expert_size = sizes.ffn;
    config.inner = sizes.inner;
    struct itera_calibration *calibration = NULL;
    const struct itera_calibrate_options calibrate = {.tokens = options->tokens,
                                                      .steps = sizes.inner != model->config.inner,
                                                      .progress = options->progress,
                                                      .user = options->user};
    status = itera_config_validate(&config, "the pruned model");
    if (!status)
        status = itera_calibrate(model, data, &calibrate, &calibration);
    if (status)
        return status;
    struct pruner p = {.model = model, .calibration = calibration, .config = &config};
    status = create_report(model, calibration->tokens, &p.report);
    if (!status)
        status = prune(&p, out);
    itera_calibration_destroy(&calibration);
    itera_arena_destroy(&p.arena);
    free(p.weights);
    if (status)
        itera_prune_report_destroy(&p.report);
    *report = p.report;
    return status;
}
