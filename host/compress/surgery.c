#include "compress/surgery.h"

#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "text/tokenizer_impl.h"

enum extent { ALL, INNER, STEPS, FFN, EXPERTS };

/* What the rows and columns of a parameter stand for, by the end of its name; the first rule that
 * fits counts. halves: the rows are two such lists, one below the other. Parameters without a rule
 * stay as they are. */
static const struct rule {
    const char *ending;
    enum extent rows, cols;
    int halves;
} rules[] = {
    {"in_proj.weight", INNER, ALL, 2},
    {"in_proj.bias", INNER, ALL, 2},
    {"conv1d.weight", INNER, ALL, 1},
    {"conv1d.bias", INNER, ALL, 1},
    {"delta_proj.weight", STEPS, INNER, 1},
    {"delta_proj.bias", STEPS, ALL, 1},
    {"x_proj.weight", ALL, INNER, 1},
    {"dt_proj.weight", INNER, ALL, 1},
    {"dt_proj.bias", INNER, ALL, 1},
    {".ssm.A_log", ALL, ALL, 1}, /* of itera: one for all channels */
    {".A_log", INNER, ALL, 1},
    {".B", ALL, INNER, 1},
    {".C", INNER, ALL, 1},
    {".D", INNER, ALL, 1},
    {"out_proj.weight", ALL, INNER, 1},
    {"router.gate.weight", EXPERTS, ALL, 1},
    {"router.weight", EXPERTS, ALL, 1},
    {".w1.weight", FFN, ALL, 1},
    {".gate_proj.weight", FFN, ALL, 2}, /* above up_proj */
    {".w2.weight", ALL, FFN, 1},
    {".down_proj.weight", ALL, FFN, 1},
};

static struct rule find_rule(const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        size_t ending = strlen(rules[i].ending);
        if (length >= ending && !strcmp(name + length - ending, rules[i].ending))
            return rules[i];
    }
    return (struct rule){"", ALL, ALL, 1};
}

/* The old numbers of the rows or columns of one expert (or of the only block); NULL: all. */
static const int32_t *find_list(const struct itera_keep *keep, enum extent extent, int64_t expert,
                                int64_t ffn)
{
    switch (extent) {
    case INNER:
        return keep->inner;
    case STEPS:
        return keep->steps;
    case FFN:
        return keep->ffn ? keep->ffn + expert * ffn : NULL;
    case EXPERTS:
        return keep->experts;
    default:
        return NULL;
    }
}

/* A parameter as blocks (experts) of rows and columns. */
struct blocks {
    int64_t blocks, rows, cols;
};

static struct blocks blocks_of(const struct itera_param *param)
{
    struct blocks b = {1, param->shape.dim[0], 1};
    if (param->experts) {
        b.blocks = param->shape.dim[0];
        b.rows = param->shape.dim[1];
    }
    if (param->shape.rank > 1)
        b.cols = itera_shape_cols(&param->shape);
    return b;
}

static void copy_param(const struct itera_param *from, const struct itera_param *to,
                       const struct itera_keep *keep, int64_t ffn, const float *old, float *new)
{
    struct rule rule = find_rule(from->name);
    struct blocks was = blocks_of(from), is = blocks_of(to);
    int64_t part_was = was.rows / rule.halves, part_is = is.rows / rule.halves;
    for (int64_t b = 0; b < is.blocks; b++) {
        int64_t block = from->experts && keep->experts ? keep->experts[b] : b;
        const int32_t *rows = find_list(keep, rule.rows, b, ffn);
        const int32_t *cols = find_list(keep, rule.cols, b, ffn);
        for (int64_t r = 0; r < is.rows; r++) {
            int64_t half = r / part_is, row = rows ? rows[r % part_is] : r % part_is;
            const float *source =
                old + from->offset + (block * was.rows + half * part_was + row) * was.cols;
            float *target = new + to->offset + (b * is.rows + r) * is.cols;
            for (int64_t c = 0; c < is.cols; c++)
                target[c] = source[cols ? cols[c] : c];
        }
    }
    if (keep->step_bias && rule.rows == STEPS && rule.cols == ALL)
        memcpy(new + to->offset, keep->step_bias, (size_t)is.rows * sizeof *new);
}

enum itera_status itera_model_shrink(const struct itera_model *old,
                                     const struct itera_config *config,
                                     const struct itera_keep *keep, struct itera_model **out)
{
    static const struct itera_keep everything;
    *out = NULL;
    struct itera_model *m = NULL;
    struct itera_tokenizer *tokenizer = NULL;
    enum itera_status status = itera_model_allocate(old->device, config, &m);
    if (status)
        return status;
    float *from = malloc((size_t)old->layout.elements * sizeof *from);
    float *to = calloc((size_t)m->layout.elements, sizeof *to);
    if (!from || !to)
        status = itera_fail(ITERA_ERR_MEMORY, "no memory for %lld weights",
                            (long long)(old->layout.elements + m->layout.elements));
    if (!status)
        status = itera_model_read_f32(old, from);
    for (int i = 0; i < m->layout.n_params && !status; i++) {
        const struct itera_param *param = &old->layout.params[i];
        int layer = itera_param_layer(param->name);
        copy_param(param, &m->layout.params[i], layer < 0 ? &everything : &keep[layer], config->ffn,
                   from, to);
    }
    if (!status)
        status = itera_model_write_f32(m, to);
    if (!status)
        status = itera_tokenizer_copy(old->tokenizer, "the model's tokenizer", &tokenizer);
    if (!status && tokenizer)
        status = itera_model_set_tokenizer(m, tokenizer);
    if (status) {
        itera_tokenizer_destroy(&tokenizer);
        itera_model_destroy(&m);
    }
    free(from);
    free(to);
    *out = m;
    return status;
}
