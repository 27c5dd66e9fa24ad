#include "model/config.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "core/number.h"
#include "format/json.h"

/* One table says for every field and family the key, the limits and the default; reading,
 * validating and writing all walk it. Columns: itera, transformer, mamba, itera-m. */
#define REQUIRED (-1)

struct int_field {
    size_t offset;
    const char *key[ITERA_ARCH_COUNT]; /* NULL: the family has no such key */
    int32_t min, max;
    int32_t absent[ITERA_ARCH_COUNT];
};

#define AT(field) offsetof(struct itera_config, field)
#define NONE      NULL

static const struct int_field int_fields[] = {
    {AT(vocab),
     {"vocab_size", "vocab_size", "vocab_size", "vocab_size"},
     1,
     1 << 24,
     {REQUIRED, REQUIRED, REQUIRED, REQUIRED}},
    {AT(hidden),
     {"hidden_size", "hidden_size", "hidden_size", "hidden_size"},
     1,
     1 << 16,
     {REQUIRED, REQUIRED, REQUIRED, REQUIRED}},
    {AT(layers),
     {"num_layers", "num_layers", "num_hidden_layers", "num_hidden_layers"},
     1,
     ITERA_MAX_LAYERS,
     {REQUIRED, REQUIRED, REQUIRED, REQUIRED}},
    {AT(state),
     {"ssm_state_size", NONE, "state_size", "mamba_d_state"},
     1,
     ITERA_MAX_STATES,
     {REQUIRED, 0, 16, 16}},
    {AT(conv),
     {"ssm_conv_kernel", NONE, "conv_kernel", "mamba_d_conv"},
     1,
     ITERA_MAX_CONV,
     {4, 0, 4, 4}},
    {AT(expand), {"ssm_expand_factor", NONE, "expand", "mamba_expand"}, 1, 16, {2, 0, 2, 2}},
    {AT(experts),
     {"num_experts", NONE, NONE, "num_experts"},
     1,
     ITERA_MAX_EXPERTS,
     {REQUIRED, 0, 0, 16}},
    {AT(top_k),
     {"top_k_experts", NONE, NONE, "num_experts_per_tok"},
     1,
     ITERA_MAX_EXPERTS,
     {2, 0, 0, 2}},
    {AT(expert_size), {"expert_size", NONE, NONE, NONE}, 1, 1 << 20, {REQUIRED, 0, 0, 0}},
    {AT(ffn),
     {NONE, "intermediate_size", NONE, "intermediate_size"},
     1,
     1 << 20,
     {0, REQUIRED, 0, REQUIRED}},
    {AT(heads),
     {NONE, "num_attention_heads", NONE, "num_attention_heads"},
     1,
     1 << 16,
     {0, REQUIRED, 0, 1}},
    {AT(max_positions),
     {"max_seq_length", "max_seq_length", NONE, NONE},
     1,
     1 << 24,
     {REQUIRED, REQUIRED, 0, 0}},
    /* Absent: expand * hidden_size. */
    {AT(inner),
     {"ssm_inner_size", NONE, "intermediate_size", "mamba_d_inner"},
     1,
     1 << 20,
     {0, 0, 0, 0}},
};

struct real_field {
    size_t offset;
    const char *key[ITERA_ARCH_COUNT];
    double min, max;
    double absent[ITERA_ARCH_COUNT];
};

static const struct real_field real_fields[] = {
    {AT(norm_eps),
     {"layer_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps"},
     1e-12,
     1,
     {1e-5, 1e-5, 1e-5, 1e-6}},
    {AT(aux_weight),
     {"load_balance_loss_weight", NONE, NONE, "router_aux_loss_coef"},
     0,
     1000,
     {0.01, 0, 0, 0.001}},
    {AT(dropout), {"dropout", "dropout", "dropout", "dropout"}, 0, 0.95, {0.1, 0.1, 0, 0}},
    {AT(init_std),
     {NONE, NONE, "initializer_range", "initializer_range"},
     0,
     100,
     {0, 0, 0.1, 0.02}},
    {AT(dt_min), {NONE, NONE, "time_step_min", "time_step_min"}, 1e-12, 1000, {0, 0, 0.001, 0.001}},
    {AT(dt_max), {NONE, NONE, "time_step_max", "time_step_max"}, 1e-12, 1000, {0, 0, 0.1, 0.1}},
    {AT(dt_floor), {NONE, NONE, "time_step_floor", "time_step_floor"}, 0, 1000, {0, 0, 1e-4, 1e-4}},
};

struct bool_field {
    size_t offset;
    const char *key[ITERA_ARCH_COUNT];
    bool absent[ITERA_ARCH_COUNT]; /* where there is no key, the only value */
};

static const struct bool_field bool_fields[] = {
    {AT(conv_bias), {NONE, NONE, "use_conv_bias", "mamba_conv_bias"}, {true, false, true, true}},
    {AT(proj_bias), {NONE, NONE, "use_bias", "mamba_proj_bias"}, {false, false, false, false}},
    {AT(tied_head),
     {NONE, NONE, "tie_word_embeddings", "tie_word_embeddings"},
     {true, true, true, false}},
};

static const struct {
    size_t offset;
    const char *key;
} token_fields[] = {
    {AT(bos), "bos_token_id"},
    {AT(eos), "eos_token_id"},
    {AT(pad), "pad_token_id"},
};

/* Keys of other programs that change nothing in what we compute. */
static const char *const known_keys[] = {
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "calc_logits_for_entire_prompt",
    "d_inner",
    "d_model",
    "dtype",
    "fused_add_norm",
    "max_position_embeddings",
    "n_layer",
    "num_key_value_heads",
    "num_logits_to_keep",
    "output_router_logits",
    "pad_vocab_size_multiple",
    "rescale_prenorm_residual",
    "residual_in_fp32",
    "rms_norm",
    "sliding_window",
    "ssm_cfg",
    "time_step_init_scheme",
    "time_step_scale",
    "torch_dtype",
    "transformers_version",
    "use_associative_scan",
    "use_cache",
    "use_mamba_kernels",
    "use_mambapy",
    NULL,
};

#define LENGTH(array) (sizeof(array) / sizeof *(array))

static int32_t *int_at(struct itera_config *config, size_t offset)
{
    return (int32_t *)((char *)config + offset);
}

static int32_t get_int(const struct itera_config *config, size_t offset)
{
    return *(const int32_t *)((const char *)config + offset);
}

static double get_real(const struct itera_config *config, size_t offset)
{
    return *(const double *)((const char *)config + offset);
}

static bool get_bool(const struct itera_config *config, size_t offset)
{
    return *(const bool *)((const char *)config + offset);
}

static const struct {
    const char *name;
    const char *model_type; /* Hugging Face's, NULL when it has none */
    const char *class_name;
    const char *rank_key;
} families[ITERA_ARCH_COUNT] = {
    [ITERA_ARCH_ITERA] = {"itera", NULL, NULL, NULL},
    [ITERA_ARCH_TRANSFORMER] = {"transformer", NULL, NULL, NULL},
    [ITERA_ARCH_MAMBA] = {"mamba", "mamba", "MambaForCausalLM", "time_step_rank"},
    [ITERA_ARCH_ITERA_M] = {"itera-m", "jamba", "JambaForCausalLM", "mamba_dt_rank"},
};

const char *itera_architecture_name(enum itera_architecture architecture)
{
    return (unsigned)architecture < ITERA_ARCH_COUNT ? families[architecture].name : "unknown";
}

bool itera_config_may_untie(const struct itera_config *config)
{
    for (size_t i = 0; i < LENGTH(bool_fields); i++)
        if (bool_fields[i].offset == AT(tied_head))
            return bool_fields[i].key[config->architecture] != NULL;
    return false;
}

static enum itera_status find_architecture(struct itera_json_reader *reader,
                                           enum itera_architecture *out)
{
    const char *name = itera_json_string(reader, "architecture", NULL);
    const char *type = itera_json_string(reader, "model_type", NULL);
    const json_t *classes = itera_json_array(reader, "architectures");
    if (!name)
        name = type;
    if (!name)
        name = json_string_value(json_array_get(classes, 0));
    if (reader->status)
        return reader->status;
    for (int i = 0; name && i < ITERA_ARCH_COUNT; i++) {
        if (strcmp(name, families[i].name) == 0 ||
            (families[i].model_type && (strcmp(name, families[i].model_type) == 0 ||
                                        strcmp(name, families[i].class_name) == 0))) {
            *out = (enum itera_architecture)i;
            return ITERA_OK;
        }
    }
    if (!name)
        return reader->status = itera_fail(ITERA_ERR_FORMAT,
                                           "%s: key \"architecture\": found nothing, expected one "
                                           "of itera, transformer, mamba, itera-m (or model_type)",
                                           reader->source);
    return reader->status = itera_fail(ITERA_ERR_UNSUPPORTED,
                                       "%s: unknown architecture \"%.60s\"; known are itera, "
                                       "transformer, mamba, itera-m (jamba)",
                                       reader->source, name);
}

static void read_table(struct itera_json_reader *reader, struct itera_config *config)
{
    enum itera_architecture arch = config->architecture;
    for (size_t i = 0; i < LENGTH(int_fields); i++) {
        const struct int_field *field = &int_fields[i];
        int32_t *value = int_at(config, field->offset);
        if (!field->key[arch])
            *value = 0;
        else if (field->absent[arch] == REQUIRED)
            *value = (int32_t)itera_json_need_int(reader, field->key[arch], field->min, field->max);
        else
            *value = (int32_t)itera_json_int(reader, field->key[arch], field->absent[arch],
                                             field->min, field->max);
    }
    for (size_t i = 0; i < LENGTH(real_fields); i++) {
        const struct real_field *field = &real_fields[i];
        double *value = (double *)((char *)config + field->offset);
        *value = field->absent[arch];
        if (field->key[arch])
            *value = itera_json_real(reader, field->key[arch], *value, field->min, field->max);
    }
    for (size_t i = 0; i < LENGTH(bool_fields); i++) {
        const struct bool_field *field = &bool_fields[i];
        bool *value = (bool *)((char *)config + field->offset);
        *value = field->absent[arch];
        if (field->key[arch])
            *value = itera_json_bool(reader, field->key[arch], *value);
    }
}

static const char eos_key[] = "eos_token_id";

static bool is_eos(const struct itera_config *config, int64_t id)
{
    bool is = id == config->eos;
    for (int32_t i = 0; i < config->n_more_eos; i++)
        is |= id == config->more_eos[i];
    return is;
}

static void add_eos(struct itera_json_reader *reader, struct itera_config *config, int64_t id)
{
    if (id < 0 || is_eos(config, id))
        return;
    if (config->eos < 0)
        config->eos = (int32_t)id;
    else if (config->n_more_eos < ITERA_MAX_EOS - 1)
        config->more_eos[config->n_more_eos++] = (int32_t)id;
    else
        itera_json_fail(reader, eos_key, "at most 16 ids");
}

/* An id, or a list of ids as Hugging Face allows; of a list for anything but the end of a text, the
 * first counts. */
static void read_token(struct itera_json_reader *reader, const char *key,
                       struct itera_config *config, int32_t *field)
{
    const json_t *value = itera_json_value(reader, key);
    const size_t n = json_is_array(value) ? json_array_size(value) : 1;
    for (size_t i = 0; i < n && reader->status == ITERA_OK; i++) {
        int64_t id = -1;
        if (json_is_array(value)) {
            const json_t *item = json_array_get(value, i);
            if (!json_is_integer(item))
                itera_json_fail(reader, key, "token ids");
            id = json_integer_value(item);
            if (id < -1 || id >= config->vocab)
                itera_json_fail(reader, key, "ids below vocab_size");
        } else {
            id = itera_json_int(reader, key, -1, -1, config->vocab - 1);
        }
        if (reader->status)
            return;
        if (field == &config->eos)
            add_eos(reader, config, id);
        else if (i == 0)
            *field = (int32_t)id;
    }
}

static void read_tokens(struct itera_json_reader *reader, struct itera_config *config)
{
    for (size_t i = 0; i < LENGTH(token_fields); i++) {
        int32_t *field = int_at(config, token_fields[i].offset);
        *field = -1;
        read_token(reader, token_fields[i].key, config, field);
    }
}

enum itera_status itera_config_load_generation(const char *path, struct itera_config *config)
{
    struct itera_map map;
    json_t *root = NULL;
    struct itera_config more = *config;
    enum itera_status status = itera_map_open(path, &map);
    if (status)
        return status;
    status = itera_json_parse_python((const char *)map.data, map.size, path, &root);
    itera_map_close(&map);
    struct itera_json_reader reader;
    if (!status)
        status = itera_json_begin(&reader, root, path);
    if (!status) {
        read_token(&reader, eos_key, &more, &more.eos);
        status = reader.status;
    }
    if (!status)
        *config = more;
    json_decref(root);
    return status;
}

static void read_dt_rank(struct itera_json_reader *reader, struct itera_config *config)
{
    const char *key = families[config->architecture].rank_key;
    const json_t *value = itera_json_value(reader, key);
    int32_t automatic = (config->hidden + 15) / 16;
    if (json_is_string(value)) {
        if (strcmp(json_string_value(value), "auto") != 0)
            itera_json_fail(reader, key, "\"auto\" or an integer from 1 to 65536");
        config->dt_rank = automatic;
    } else {
        config->dt_rank = (int32_t)itera_json_int(reader, key, automatic, 1, 1 << 16);
    }
}

static void read_moe_list(struct itera_json_reader *reader, struct itera_config *config)
{
    const json_t *list = itera_json_array(reader, "moe_layers");
    if (!list) {
        for (int32_t l = 1; l < config->layers; l += 2)
            config->moe[l] = true;
        return;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        int64_t layer = json_is_integer(item) ? json_integer_value(item) : -1;
        if (layer < 0 || layer >= config->layers) {
            char expected[96];
            snprintf(expected, sizeof expected, "layer numbers from 0 to %" PRId32,
                     config->layers - 1);
            itera_json_fail(reader, "moe_layers", expected);
            return;
        }
        config->moe[layer] = true;
    }
}

static void read_jamba_layers(struct itera_json_reader *reader, struct itera_config *config)
{
    const int64_t limit = 1 << 20;
    int64_t period = itera_json_int(reader, "attn_layer_period", 8, 1, limit);
    int64_t offset = itera_json_int(reader, "attn_layer_offset", 4, 0, limit);
    if (offset >= period)
        itera_json_fail(reader, "attn_layer_offset", "less than attn_layer_period");
    if (reader->status == ITERA_OK && offset < config->layers)
        reader->status =
            itera_fail(ITERA_ERR_UNSUPPORTED,
                       "%s: layer %" PRId64 " is an attention layer (attn_layer_period %" PRId64
                       ", attn_layer_offset %" PRId64 "); expected a jamba model without attention",
                       reader->source, offset, period, offset);

    period = itera_json_int(reader, "expert_layer_period", 2, 1, limit);
    offset = itera_json_int(reader, "expert_layer_offset", 1, 0, limit);
    if (offset >= period)
        itera_json_fail(reader, "expert_layer_offset", "less than expert_layer_period");
    if (config->experts == 1)
        config->top_k = 1; /* all layers are dense, whatever the period says */
    for (int64_t l = offset; config->experts > 1 && l < config->layers; l += period)
        config->moe[l] = true;
}

static enum itera_status read_config(struct itera_json_reader *reader, struct itera_config *config)
{
    if (find_architecture(reader, &config->architecture))
        return reader->status;
    enum itera_architecture arch = config->architecture;
    read_table(reader, config);
    read_tokens(reader, config);
    if (arch != ITERA_ARCH_TRANSFORMER && !config->inner)
        config->inner = config->expand * config->hidden;
    if (reader->status)
        return reader->status; /* the lists below depend on the numbers above */

    if (families[arch].rank_key) {
        read_dt_rank(reader, config);
        const char *act = itera_json_string(reader, "hidden_act", "silu");
        if (strcmp(act, "silu") != 0)
            itera_json_fail(reader, "hidden_act", "\"silu\"");
    }
    if (arch == ITERA_ARCH_ITERA) {
        config->ffn = config->expert_size;
        read_moe_list(reader, config);
    }
    if (arch == ITERA_ARCH_ITERA_M) {
        config->expert_size = config->ffn;
        read_jamba_layers(reader, config);
    }
    return reader->status;
}

enum itera_status itera_config_parse(const char *text, size_t size, const char *source,
                                     struct itera_config *config)
{
    memset(config, 0, sizeof *config);
    json_t *root;
    enum itera_status status = itera_json_parse_python(text, size, source, &root);
    if (status)
        return status;
    struct itera_json_reader reader;
    status = itera_json_begin(&reader, root, source);
    if (status == ITERA_OK)
        status = read_config(&reader, config);
    if (status == ITERA_OK)
        status = itera_config_validate(config, source);
    if (status == ITERA_OK)
        itera_json_warn_unknown(&reader, known_keys);
    else
        memset(config, 0, sizeof *config);
    json_decref(root);
    return status;
}

enum itera_status itera_config_load(const char *path, struct itera_config *config)
{
    memset(config, 0, sizeof *config);
    struct itera_map map;
    enum itera_status status = itera_map_open(path, &map);
    if (status)
        return status;
    status = itera_config_parse((const char *)map.data, map.size, path, config);
    itera_map_close(&map);
    return status;
}

/* The key of an integer field in this family's files, for messages. */
static const char *key_of(const struct itera_config *config, size_t offset)
{
    for (size_t i = 0; i < LENGTH(int_fields); i++)
        if (int_fields[i].offset == offset && int_fields[i].key[config->architecture])
            return int_fields[i].key[config->architecture];
    return offset == AT(dt_rank)       ? families[config->architecture].rank_key
           : offset == AT(expert_size) ? "expert size"
                                       : "size";
}

static enum itera_status validate_table(const struct itera_config *config, const char *source)
{
    enum itera_architecture arch = config->architecture;
    for (size_t i = 0; i < LENGTH(int_fields); i++) {
        const struct int_field *field = &int_fields[i];
        int32_t value = get_int(config, field->offset);
        if (field->key[arch] && (value < field->min || value > field->max))
            return itera_fail(ITERA_ERR_FORMAT,
                              "%s: key \"%s\": found %" PRId32 ", expected %" PRId32 " to %" PRId32,
                              source, field->key[arch], value, field->min, field->max);
    }
    for (size_t i = 0; i < LENGTH(real_fields); i++) {
        const struct real_field *field = &real_fields[i];
        double value = get_real(config, field->offset);
        if (field->key[arch] && !(value >= field->min && value <= field->max))
            return itera_fail(ITERA_ERR_FORMAT, "%s: key \"%s\": found %g, expected %g to %g",
                              source, field->key[arch], value, field->min, field->max);
    }
    for (size_t i = 0; i < LENGTH(bool_fields); i++) {
        const struct bool_field *field = &bool_fields[i];
        if (!field->key[arch] && get_bool(config, field->offset) != field->absent[arch])
            return itera_fail(
                ITERA_ERR_FORMAT,
                "%s: biases or head tying differ from what architecture %s is defined with", source,
                families[arch].name);
    }
    for (size_t i = 0; i < LENGTH(token_fields); i++) {
        int32_t id = get_int(config, token_fields[i].offset);
        if (id < -1 || id >= config->vocab)
            return itera_fail(ITERA_ERR_FORMAT,
                              "%s: key \"%s\": found %" PRId32
                              ", expected below vocab_size %" PRId32,
                              source, token_fields[i].key, id, config->vocab);
    }
    for (int32_t i = 0; i < config->n_more_eos; i++)
        if (config->more_eos[i] < 0 || config->more_eos[i] >= config->vocab)
            return itera_fail(ITERA_ERR_FORMAT,
                              "%s: key \"%s\": found %" PRId32
                              ", expected below vocab_size %" PRId32,
                              source, eos_key, config->more_eos[i], config->vocab);
    return ITERA_OK;
}

/* Each pair of factors is one tensor. Factors are below 2^26, so a product of three fits. */
static enum itera_status validate_sizes(const struct itera_config *config, const char *source)
{
    const struct {
        size_t a, b, c;
        int64_t factor;
    } tensors[] = {
        {AT(vocab), AT(hidden), 0, 1},   {AT(max_positions), AT(hidden), 0, 1},
        {AT(inner), AT(hidden), 0, 2},   {AT(inner), AT(state), 0, 2},
        {AT(inner), AT(dt_rank), 0, 1},  {AT(ffn), AT(hidden), 0, 1},
        {AT(hidden), AT(hidden), 0, 3},  {AT(expert_size), AT(hidden), AT(experts), 1},
        {AT(experts), AT(hidden), 0, 1},
    };
    for (size_t i = 0; i < LENGTH(tensors); i++) {
        int64_t length = tensors[i].factor * get_int(config, tensors[i].a);
        length *= get_int(config, tensors[i].b);
        if (tensors[i].c && length <= INT64_MAX >> 10)
            length *= get_int(config, tensors[i].c);
        if (length > ITERA_MAX_TENSOR_LENGTH)
            return itera_fail(ITERA_ERR_FORMAT,
                              "%s: keys \"%s\" and \"%s\": a tensor would have %" PRId64
                              " elements, expected at most %" PRId64,
                              source, key_of(config, tensors[i].a), key_of(config, tensors[i].b),
                              length, ITERA_MAX_TENSOR_LENGTH);
    }
    if (config->architecture == ITERA_ARCH_ITERA &&
        (int64_t)config->inner * config->inner > ITERA_MAX_TENSOR_LENGTH)
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: keys \"ssm_inner_size\", \"ssm_expand_factor\" and \"hidden_size\": "
                          "found an inner size of %" PRId32 ", expected at most 46340",
                          source, config->inner);
    return ITERA_OK;
}

/* Whether MoE layers are those l with l % period == offset; the smallest such period. */
static bool find_period(const struct itera_config *config, int32_t *period, int32_t *offset)
{
    for (int32_t p = 1; p <= config->layers + 1; p++) {
        for (int32_t o = 0; o < p; o++) {
            bool same = true;
            for (int32_t l = 0; same && l < config->layers; l++)
                same = config->moe[l] == (l % p == o);
            if (same) {
                *period = p;
                *offset = o;
                return true;
            }
        }
    }
    return false;
}

static enum itera_status validate_moe(const struct itera_config *config, const char *source)
{
    enum itera_architecture arch = config->architecture;
    bool any = false, beyond = false;
    for (int32_t l = 0; l < ITERA_MAX_LAYERS; l++) {
        any |= config->moe[l] && l < config->layers;
        beyond |= config->moe[l] && l >= config->layers;
    }
    bool has_moe = arch == ITERA_ARCH_ITERA || arch == ITERA_ARCH_ITERA_M;
    if (beyond || (any && !has_moe))
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: architecture %s with %" PRId32
                          " layers: a MoE layer is set that it does not have",
                          source, families[arch].name, config->layers);
    if (!has_moe)
        return ITERA_OK;
    if (config->top_k > config->experts)
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: key \"%s\": found %" PRId32
                          ", expected at most num_experts %" PRId32,
                          source, key_of(config, AT(top_k)), config->top_k, config->experts);
    /* The load-balance loss divides by experts - 1. */
    if (any && config->experts < 2)
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: key \"num_experts\": found 1, expected at least 2 in a model with "
                          "MoE layers",
                          source);
    if (config->expert_size != config->ffn)
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: expert size %" PRId32 " and feed-forward size %" PRId32
                          " differ, expected one size for both in %s",
                          source, config->expert_size, config->ffn, families[arch].name);
    int32_t period, offset;
    if (arch == ITERA_ARCH_ITERA_M && !find_period(config, &period, &offset))
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: MoE layers of itera-m must be every n-th layer from some layer on",
                          source);
    return ITERA_OK;
}

enum itera_status itera_config_validate(const struct itera_config *config, const char *source)
{
    enum itera_architecture arch = config->architecture;
    if (!source)
        source = "configuration";
    if ((unsigned)arch >= ITERA_ARCH_COUNT)
        return itera_fail(ITERA_ERR_FORMAT, "%s: architecture %d is none of the known", source,
                          (int)arch);
    enum itera_status status = validate_table(config, source);
    if (status)
        return status;
    if (families[arch].rank_key) {
        if (config->dt_rank < 1 || config->dt_rank > 1 << 16)
            return itera_fail(ITERA_ERR_FORMAT,
                              "%s: key \"%s\": found %" PRId32 ", expected 1 to 65536", source,
                              families[arch].rank_key, config->dt_rank);
        if (config->dt_min > config->dt_max)
            return itera_fail(ITERA_ERR_FORMAT,
                              "%s: key \"time_step_min\": found %g, expected at most time_step_max "
                              "%g",
                              source, config->dt_min, config->dt_max);
    }
    if (arch == ITERA_ARCH_TRANSFORMER && config->hidden % config->heads != 0)
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: key \"num_attention_heads\": found %" PRId32
                          ", expected a divisor of hidden_size %" PRId32,
                          source, config->heads, config->hidden);
    status = validate_moe(config, source);
    if (status == ITERA_OK)
        status = validate_sizes(config, source);
    return status;
}

/* The fewest digits that bring every real field back exactly: 1e-5, not 1.0000000000000001e-5. */
static size_t real_digits(const struct itera_config *config)
{
    static const int choices[] = {6, 9, 15, 16};
    for (size_t c = 0; c < LENGTH(choices); c++) {
        bool exact = true;
        for (size_t i = 0; exact && i < LENGTH(real_fields); i++) {
            char text[64];
            double value = get_real(config, real_fields[i].offset);
            itera_format(text, sizeof text, "%.*g", choices[c], value);
            exact = itera_read_number(text, NULL) == value;
        }
        if (exact)
            return (size_t)choices[c];
    }
    return 17;
}

static int write_jamba_layers(const struct itera_config *config, json_t *root)
{
    int32_t period = 0, offset = 0;
    find_period(config, &period, &offset);
    /* An attention layer past the last one: Hugging Face has no other way to say "none". */
    return json_object_set_new(root, "attn_layer_period", json_integer(config->layers + 1)) |
           json_object_set_new(root, "attn_layer_offset", json_integer(config->layers)) |
           json_object_set_new(root, "expert_layer_period", json_integer(period)) |
           json_object_set_new(root, "expert_layer_offset", json_integer(offset)) |
           json_object_set_new(root, "num_key_value_heads", json_integer(config->heads));
}

static int write_moe_list(const struct itera_config *config, json_t *root)
{
    json_t *list = json_array();
    int failed = 0;
    for (int32_t l = 0; l < config->layers; l++)
        if (config->moe[l])
            failed |= json_array_append_new(list, json_integer(l));
    return failed | json_object_set_new(root, "moe_layers", list);
}

static json_t *eos_list(const struct itera_config *config)
{
    json_t *list = json_pack("[i]", (int)config->eos);
    for (int32_t i = 0; list && i < config->n_more_eos; i++) {
        if (json_array_append_new(list, json_integer(config->more_eos[i]))) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

/* 0, or not when memory ran out (jansson's setters fail on a NULL value). */
static int write_config(const struct itera_config *config, json_t *root)
{
    enum itera_architecture arch = config->architecture;
    int failed = 0;
    if (families[arch].model_type) {
        failed |=
            json_object_set_new(root, "architectures", json_pack("[s]", families[arch].class_name));
        failed |= json_object_set_new(root, "model_type", json_string(families[arch].model_type));
    } else {
        failed |= json_object_set_new(root, "architecture", json_string(families[arch].name));
    }
    /* Hugging Face's mamba has the inner size as a key, other programs take it for granted. */
    bool inner = arch == ITERA_ARCH_MAMBA || config->inner != config->expand * config->hidden;
    for (size_t i = 0; i < LENGTH(int_fields); i++)
        if (int_fields[i].key[arch] && (int_fields[i].offset != AT(inner) || inner))
            failed |= json_object_set_new(root, int_fields[i].key[arch],
                                          json_integer(get_int(config, int_fields[i].offset)));
    if (families[arch].rank_key) {
        failed |= json_object_set_new(root, families[arch].rank_key, json_integer(config->dt_rank));
        failed |= json_object_set_new(root, "hidden_act", json_string("silu"));
    }
    if (arch == ITERA_ARCH_ITERA)
        failed |= write_moe_list(config, root);
    if (arch == ITERA_ARCH_ITERA_M)
        failed |= write_jamba_layers(config, root);
    for (size_t i = 0; i < LENGTH(real_fields); i++)
        if (real_fields[i].key[arch])
            failed |= json_object_set_new(root, real_fields[i].key[arch],
                                          json_real(get_real(config, real_fields[i].offset)));
    for (size_t i = 0; i < LENGTH(bool_fields); i++)
        if (bool_fields[i].key[arch])
            failed |= json_object_set_new(root, bool_fields[i].key[arch],
                                          json_boolean(get_bool(config, bool_fields[i].offset)));
    for (size_t i = 0; i < LENGTH(token_fields); i++) {
        int32_t id = get_int(config, token_fields[i].offset);
        /* Without the key, Hugging Face would put its own default id there. */
        if (token_fields[i].offset == AT(eos) && config->n_more_eos)
            failed |= json_object_set_new(root, token_fields[i].key, eos_list(config));
        else if (id >= 0 || families[arch].model_type)
            failed |= json_object_set_new(root, token_fields[i].key,
                                          id >= 0 ? json_integer(id) : json_null());
    }
    return failed;
}

enum itera_status itera_config_to_json(const struct itera_config *config, char **out)
{
    *out = NULL;
    enum itera_status status = itera_config_validate(config, NULL);
    if (status)
        return status;
    json_t *root = json_object();
    if (root && write_config(config, root) == 0)
        *out = itera_json_write(root, JSON_INDENT(2) | JSON_REAL_PRECISION(real_digits(config)));
    json_decref(root);
    return *out ? ITERA_OK
                : itera_fail(ITERA_ERR_MEMORY, "out of memory while writing a configuration");
}
