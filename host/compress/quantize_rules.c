#include "compress/quantize_rules.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "tensor/blocks.h"

enum { RULE_LENGTH = 256 };
static const char TYPES[] = "f32, f16, bf16, q8 or q4";

struct rule {
    const char *pattern;
    enum itera_dtype type;
};

/* In all presets. A router decides by small differences and has next to no weight. The vectors of a
 * scan and the convolution lose nothing that can be measured in f16. */
static const struct rule common_rules[] = {
    {"*router*", ITERA_F32}, {"*.conv1d.*", ITERA_F16},     {"*.A_log", ITERA_F16},
    {"*.D", ITERA_F16},      {"*.dt_proj.bias", ITERA_F16}, {"*.delta_proj.bias", ITERA_F16},
};
/* The projections that make the step, B and C of a scan are small, and what they get wrong stays in
 * the state. */
static const struct rule q4_rules[] = {
    {"*.x_proj.weight", ITERA_Q8},
    {"*.dt_proj.weight", ITERA_Q8},
    {"*.ssm.B", ITERA_Q8},
    {"*.ssm.C", ITERA_Q8},
};
static const struct rule mixed_rules[] = {
    {"*embed*", ITERA_Q8},
    {"lm_head.weight", ITERA_Q8},
    {"*.in_proj.weight", ITERA_Q8},
    {"*.out_proj.weight", ITERA_Q8},
    {"*.qkv.weight", ITERA_Q8},
    {"*.delta_proj.weight", ITERA_Q8}, /* as large as a projection, and averaged over channels */
    {"*.x_proj.weight", ITERA_F16},
    {"*.dt_proj.weight", ITERA_F16},
    {"*.ssm.B", ITERA_F16},
    {"*.ssm.C", ITERA_F16},
    {"*.w[12].weight", ITERA_Q4},
    {"*.feed_forward.*_proj.weight", ITERA_Q4},
};

#define COUNT(list) ((int)(sizeof(list) / sizeof *(list)))
static const struct preset {
    const char *name;
    enum itera_dtype type; /* of what no rule names */
    const struct rule *rules;
    int n;
} presets[] = {
    {"q8", ITERA_Q8, NULL, 0},
    {"q4", ITERA_Q4, q4_rules, COUNT(q4_rules)},
    {"mixed", ITERA_F32, mixed_rules, COUNT(mixed_rules)},
};

/* Names of a few tensors, from all over the model. */
static const char *some_names(const struct itera_layout *layout, char *out, size_t size)
{
    enum { NAMES = 4 };
    size_t used = 0;
    *out = 0;
    for (int i = 0; i < NAMES && used < size; i++) {
        int param = i * (layout->n_params - 1) / (NAMES - 1);
        used += (size_t)snprintf(out + used, size - used, "%s%s", i ? ", " : "",
                                 layout->params[param].name);
    }
    return out;
}

/* Sets the type of every part that the pattern matches; counts them, and the matrices. */
static void apply(const struct itera_layout *layout, const char *pattern, enum itera_dtype type,
                  enum itera_dtype *types, int *matched, int *matrices)
{
    *matched = *matrices = 0;
    for (int i = 0; i < layout->n_params; i++) {
        const struct itera_param *param = &layout->params[i];
        for (int k = 0; k < param->n_parts; k++, types++) {
            if (fnmatch(pattern, param->parts[k].name, 0))
                continue;
            *types = type;
            ++*matched;
            *matrices += param->matrix;
        }
    }
}

static enum itera_status apply_set(const struct itera_layout *layout, const char *text,
                                   size_t length, enum itera_dtype *types, bool *named)
{
    char pattern[RULE_LENGTH], names[512];
    enum itera_dtype type;
    if (length >= sizeof pattern)
        return itera_fail(ITERA_ERR_ARGUMENT, "the rule %.40s... is too long", text);
    memcpy(pattern, text, length);
    pattern[length] = 0;
    char *equals = strrchr(pattern, '=');
    if (!equals || equals == pattern)
        return itera_fail(ITERA_ERR_ARGUMENT, "'%s' is no rule of the form PATTERN=TYPE", pattern);
    *equals = 0;
    if (!itera_dtype_find(equals + 1, &type))
        return itera_fail(ITERA_ERR_ARGUMENT, "'%s' in the rule for '%s' is no type; use %s",
                          equals + 1, pattern, TYPES);
    int matched, matrices;
    apply(layout, pattern, type, types, &matched, &matrices);
    for (int i = 0; i < layout->n_params; i++)
        for (int k = 0; k < layout->params[i].n_parts; k++)
            named[i] |= !fnmatch(pattern, layout->params[i].parts[k].name, 0);
    if (!matched)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "the pattern '%s' matches no tensor of this model; it has %s", pattern,
                          some_names(layout, names, sizeof names));
    if (!matrices && itera_dtype_is_blocks(type))
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "the pattern '%s' matches nothing that could be %s: only matrices and "
                          "embeddings can",
                          pattern, equals + 1);
    return ITERA_OK;
}

static void apply_rules(const struct itera_layout *layout, const struct rule *rules, int n,
                        enum itera_dtype *types)
{
    int matched, matrices;
    for (int i = 0; i < n; i++)
        apply(layout, rules[i].pattern, rules[i].type, types, &matched, &matrices);
}

static enum itera_status apply_base(const struct itera_layout *layout, const char *to,
                                    enum itera_dtype *types)
{
    for (int i = 0; i < COUNT(presets); i++) {
        if (strcmp(to, presets[i].name))
            continue;
        apply_rules(layout, &(struct rule){"*", presets[i].type}, 1, types);
        apply_rules(layout, common_rules, COUNT(common_rules), types);
        apply_rules(layout, presets[i].rules, presets[i].n, types);
        return ITERA_OK;
    }
    struct rule all = {"*", ITERA_F32};
    if (!itera_dtype_find(to, &all.type))
        return itera_fail(ITERA_ERR_ARGUMENT, "'%s' is no type of weights; use %s, or mixed", to,
                          TYPES);
    apply_rules(layout, &all, 1, types);
    return ITERA_OK;
}

static struct itera_quantize_choice choose(const struct itera_param *param, enum itera_dtype type)
{
    const bool blocks = itera_dtype_is_blocks(type);
    if (!param->matrix) {
        enum itera_dtype stored = blocks ? ITERA_F32 : type;
        return (struct itera_quantize_choice){ITERA_F32, stored, stored, false};
    }
    if (blocks && itera_shape_cols(&param->shape) % ITERA_BLOCK)
        return (struct itera_quantize_choice){ITERA_F16, ITERA_F16, type, false};
    return (struct itera_quantize_choice){type, type, type, false};
}

enum itera_status itera_quantize_choose(const struct itera_layout *layout, const char *to,
                                        const char *const *set, int n_set,
                                        struct itera_quantize_choice *choices)
{
    size_t n = 0;
    for (int i = 0; i < layout->n_params; i++)
        n += (size_t)layout->params[i].n_parts;
    enum itera_dtype *types = calloc(n + 1, sizeof *types), *of_param = types;
    bool *named = calloc((size_t)layout->n_params + 1, sizeof *named);
    enum itera_status status =
        types && named ? apply_base(layout, to, types)
                       : itera_fail(ITERA_ERR_MEMORY, "no memory to choose types of weights");
    for (int i = 0; i < n_set && !status; i++) {
        for (const char *at = set[i]; !status; at++) {
            size_t length = strcspn(at, ",");
            status = apply_set(layout, at, length, types, named);
            at += length;
            if (!*at)
                break;
        }
    }
    for (int i = 0; i < layout->n_params && !status; i++) {
        const struct itera_param *param = &layout->params[i];
        for (int k = 1; k < param->n_parts && !status; k++)
            if (of_param[k] != of_param[0])
                status = itera_fail(ITERA_ERR_ARGUMENT,
                                    "%s would be %s and %s %s, but they are one matrix in memory: "
                                    "give them one type",
                                    param->parts[0].name, itera_dtype_name(of_param[0]),
                                    param->parts[k].name, itera_dtype_name(of_param[k]));
        choices[i] = choose(param, of_param[0]);
        choices[i].named = named[i];
        of_param += param->n_parts;
    }
    free(types);
    free(named);
    return status;
}
