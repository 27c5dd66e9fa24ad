#include "model/model_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "core/rng.h"
#include "format/safetensors.h"
#include "model/weights.h"
#include "tensor/blocks.h"
#include "text/tokenizer_impl.h"

/* Where in a file a configuration or tokenizer came from, for messages. */
static const char *place(char *out, size_t size, const char *path, const char *key)
{
    snprintf(out, size, "%s: metadata \"%s\"", path, key);
    return out;
}

static const char CONFIG_KEY[] = "itera.config", TOKENIZER_KEY[] = "itera.tokenizer",
                  SHAPES_KEY[] = "itera.shapes";

const char *itera_preset_name(size_t index)
{
    return itera_config_preset_name(index);
}

/* FLOPs of one token within a long sequence, from the cost rules of the recorded ops. */
static double flops_per_token(const struct itera_config *config, struct itera_layout *layout)
{
    enum { TOKENS = 64 };
    int64_t time =
        config->max_positions && config->max_positions < TOKENS ? config->max_positions : TOKENS;
    struct itera_graph g = {.phase = ITERA_PHASE_EVAL, .batch = 1, .time = time};
    double flops = 0;
    if (!itera_graph_record(&g, config, layout))
        flops = itera_program_cost(g.p, NULL).flops / (double)time;
    itera_graph_destroy(&g);
    return flops;
}

/* A model with the types of `like` (NULL: f32), which has the layout of the same configuration. */
static enum itera_status allocate(struct itera_device *device, const struct itera_config *config,
                                  const struct itera_layout *like, struct itera_model **out)
{
    *out = NULL;
    struct itera_model *m = calloc(1, sizeof *m);
    if (!m)
        return itera_fail(ITERA_ERR_MEMORY, "no memory for a model");
    m->device = device;
    m->config = *config;
    enum itera_status status = itera_layout_create(config, &m->layout);
    for (int i = 0; i < m->layout.n_params && like && !status; i++) {
        m->layout.params[i].dtype = like->params[i].dtype;
        m->layout.params[i].stored = like->params[i].stored;
    }
    if (!status && like) {
        m->layout.integer = like->integer;
        m->layout.half = like->half;
        itera_layout_place(&m->layout);
    }
    if (!status)
        status = itera_buffer_create(device, (size_t)m->layout.bytes, &m->weights);
    if (status) {
        itera_model_destroy(&m);
        return status;
    }
    int64_t active = 0, bytes = 0, active_bytes = 0;
    for (int i = 0; i < m->layout.n_params; i++) {
        const struct itera_param *param = &m->layout.params[i];
        int64_t n = itera_shape_elements(&param->shape);
        int64_t used = param->experts ? n / param->experts * config->top_k : n;
        active += used;
        bytes += (int64_t)itera_dtype_bytes(param->dtype, n);
        active_bytes += (int64_t)itera_dtype_bytes(param->dtype, used);
    }
    m->info = (struct itera_model_info){
        .architecture = itera_architecture_name(config->architecture),
        .parameters = m->layout.parameters,
        .active_parameters = active,
        .bytes = bytes,
        .active_bytes = active_bytes,
        .flops_per_token = flops_per_token(config, &m->layout),
        .vocab = config->vocab,
        .hidden = config->hidden,
        .layers = config->layers,
        .max_positions = config->max_positions,
    };
    *out = m;
    return ITERA_OK;
}

enum itera_status itera_model_allocate(struct itera_device *device,
                                       const struct itera_config *config, struct itera_model **out)
{
    return allocate(device, config, NULL, out);
}

enum itera_status itera_model_allocate_like(struct itera_device *device,
                                            const struct itera_config *config,
                                            const enum itera_dtype *dtypes,
                                            const enum itera_dtype *stored,
                                            struct itera_model **out)
{
    *out = NULL;
    struct itera_layout like;
    enum itera_status status = itera_layout_create(config, &like);
    if (status)
        return status;
    for (int i = 0; i < like.n_params; i++) {
        like.params[i].dtype = dtypes[i];
        like.params[i].stored = stored[i];
    }
    status = allocate(device, config, &like, out);
    itera_layout_destroy(&like);
    return status;
}

void itera_model_destroy(struct itera_model **model)
{
    struct itera_model *m = *model;
    if (!m)
        return;
    itera_tokenizer_destroy(&m->tokenizer);
    itera_buffer_destroy(&m->weights);
    itera_layout_destroy(&m->layout);
    free(m);
    *model = NULL;
}

static float init_value(const struct itera_param *param, int64_t index, struct itera_rng *rng)
{
    switch (param->init) {
    case ITERA_INIT_ZERO:
        return 0;
    case ITERA_INIT_ONE:
        return 1;
    case ITERA_INIT_NORMAL:
        return param->init_scale * itera_rng_normal(rng);
    case ITERA_INIT_UNIFORM:
        return param->init_scale * (2 * itera_rng_uniform(rng) - 1);
    case ITERA_INIT_A_LOG:
        return logf((float)(index % itera_shape_cols(&param->shape) + 1));
    case ITERA_INIT_DT_BIAS: {
        double dt = exp(log(0.001) + itera_rng_uniform(rng) * (log(0.1) - log(0.001)));
        return (float)(dt + log(-expm1(-dt)));
    }
    }
    return 0;
}

void itera_layout_initialize(const struct itera_layout *layout, uint64_t seed, float *weights)
{
    for (int i = 0; i < layout->n_params; i++) {
        const struct itera_param *param = &layout->params[i];
        /* One stream per parameter: adding one does not change the others. */
        struct itera_rng rng = {.seed = seed, .stream = (uint64_t)i + 1};
        int64_t n = itera_shape_elements(&param->shape);
        for (int64_t k = 0; k < n; k++)
            weights[param->offset + k] = init_value(param, k, &rng);
    }
}

/* The path of a file in a model's directory, or beside a model's file. */
static enum itera_status beside_model(const char *path, const char *name, char *out, size_t size)
{
    if (itera_is_directory(path))
        return itera_path_join(out, size, path, name);
    /* With its slash: a file in the root folder has nothing before it. */
    const char *slash = strrchr(path, '/');
    char *folder = strndup(path, slash ? (size_t)(slash - path) + 1 : 0);
    enum itera_status status = folder
                                   ? itera_path_join(out, size, folder, name)
                                   : itera_fail(ITERA_ERR_MEMORY, "%s: no memory to read it", path);
    free(folder);
    return status;
}

/* The configuration: in the file's metadata, else config.json in the same directory. path is for
 * messages alone where nothing lies beside the file: in memory. */
static enum itera_status find_config(const struct itera_safetensors *file, const char *path,
                                     bool in_memory, struct itera_config *config)
{
    const char *text = itera_safetensors_metadata(file, CONFIG_KEY);
    char beside[4096 + 64];
    if (text)
        return itera_config_parse(text, strlen(text),
                                  place(beside, sizeof beside, path, CONFIG_KEY), config);
    if (in_memory)
        return itera_fail(ITERA_ERR_FORMAT, "%s: no configuration: no '%s' in its metadata", path,
                          CONFIG_KEY);
    enum itera_status status = beside_model(path, "config.json", beside, sizeof beside);
    if (status)
        return status;
    if (!itera_file_exists(beside))
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: no configuration: neither '%s' in its metadata nor %s", path,
                          CONFIG_KEY, beside);
    status = itera_config_load(beside, config);
    if (!status)
        status = beside_model(path, "generation_config.json", beside, sizeof beside);
    if (!status && itera_file_exists(beside))
        status = itera_config_load_generation(beside, config);
    return status;
}

/* The tokenizer: in the file's metadata, else tokenizer.json in the same directory; NULL where there
 * is neither. */
static enum itera_status find_tokenizer(const struct itera_safetensors *file, const char *path,
                                        bool in_memory, struct itera_tokenizer **tokenizer)
{
    const char *text = itera_safetensors_metadata(file, TOKENIZER_KEY);
    char beside[4096 + 64];
    if (text)
        return itera_tokenizer_from_json(
            text, strlen(text), place(beside, sizeof beside, path, TOKENIZER_KEY), tokenizer);
    if (in_memory)
        return ITERA_OK;
    enum itera_status status = beside_model(path, "tokenizer.json", beside, sizeof beside);
    if (status || !itera_file_exists(beside))
        return status;
    return itera_tokenizer_open(beside, tokenizer);
}

enum itera_status itera_model_open_tokenizer(const char *path, struct itera_tokenizer **out)
{
    *out = NULL;
    struct itera_safetensors *file = NULL;
    enum itera_status status = itera_safetensors_open(path, &file);
    if (!status)
        status = find_tokenizer(file, path, false, out);
    itera_safetensors_close(&file);
    return status;
}

/* A head in the file that is not the embeddings is the model's, whatever the configuration says of
 * tying, as Hugging Face has it: the layout becomes that of a model with its own head. */
static enum itera_status untie_head(const struct itera_safetensors *file, const char *path,
                                    bool expand, struct itera_config *config,
                                    struct itera_layout *layout)
{
    bool differs = false;
    enum itera_status status =
        config->tied_head ? itera_layout_head_differs(layout, file, path, &differs) : ITERA_OK;
    if (status || !differs)
        return status;
    if (!itera_config_may_untie(config))
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: tensor lm_head.weight: its values are not those of the embeddings, "
                          "expected the same (or no such tensor) in architecture %s",
                          path, itera_architecture_name(config->architecture));
    itera_log(ITERA_LOG_WARNING,
              "%s: tensor lm_head.weight is not the embeddings: it is used as the head, though the "
              "configuration has tie_word_embeddings true",
              path);
    config->tied_head = false;
    itera_layout_destroy(layout);
    status = itera_layout_create(config, layout);
    return status ? status : itera_layout_find(layout, file, expand);
}

/* Loads the model of an open file; path as for find_config. */
static enum itera_half find_half(bool exact, bool half)
{
    return exact ? ITERA_HALF_NONE : half ? ITERA_HALF_ALL : ITERA_HALF_NARROW;
}

static enum itera_status load(struct itera_device *device, const struct itera_safetensors *file,
                              const char *path, bool in_memory,
                              const struct itera_load_options *options, struct itera_model **out)
{
    struct itera_model *m = NULL;
    struct itera_tokenizer *tokenizer = NULL;
    struct itera_layout layout = {0};
    void *weights = NULL;
    struct itera_config config;
    enum itera_status status = find_config(file, path, in_memory, &config);
    if (!status)
        status = itera_layout_create(&config, &layout);
    /* Before memory is taken for them, so that a small file cannot ask for more than its own size
     * justifies. */
    if (!status)
        status = itera_layout_find(&layout, file, options && options->expand);
    if (!status)
        status = untie_head(file, path, options && options->expand, &config, &layout);
    layout.integer = !(options && options->exact);
    layout.half = find_half(options && options->exact, options && options->half);
    if (!status)
        status = allocate(device, &config, &layout, &m);
    if (status)
        goto done;
    weights = calloc(1, (size_t)m->layout.bytes);
    if (!weights) {
        status = itera_fail(ITERA_ERR_MEMORY, "%s: no memory for %lld bytes of weights", path,
                            (long long)m->layout.bytes);
        goto done;
    }
    status = itera_layout_read(&m->layout, file, path, config.tied_head, options, weights);
    if (!status)
        status = itera_buffer_upload(m->weights, 0, weights, (size_t)m->layout.bytes);
    if (!status)
        status = find_tokenizer(file, path, in_memory, &tokenizer);
    if (!status && tokenizer)
        status = itera_model_set_tokenizer(m, tokenizer);
    if (!status)
        tokenizer = NULL;
done:
    itera_tokenizer_destroy(&tokenizer);
    itera_layout_destroy(&layout);
    free(weights);
    if (status)
        itera_model_destroy(&m);
    *out = m;
    return status;
}

enum itera_status itera_model_load_as(struct itera_device *device, const char *path,
                                      const struct itera_load_options *options,
                                      struct itera_model **out)
{
    *out = NULL;
    struct itera_safetensors *file = NULL;
    enum itera_status status = itera_safetensors_open(path, &file);
    if (!status)
        status = load(device, file, path, false, options, out);
    itera_safetensors_close(&file);
    return status;
}

enum itera_status itera_model_load_memory(struct itera_device *device, const void *data,
                                          size_t size, const struct itera_load_options *options,
                                          struct itera_model **out)
{
    *out = NULL;
    static const char name[] = "a model in memory";
    struct itera_safetensors *file = NULL;
    enum itera_status status = itera_safetensors_open_memory(data, size, name, &file);
    if (!status)
        status = load(device, file, name, true, options, out);
    itera_safetensors_close(&file);
    return status;
}

enum itera_status itera_model_load(struct itera_device *device, const char *path,
                                   struct itera_model **out)
{
    return itera_model_load_as(device, path, NULL, out);
}

enum itera_status itera_model_create(struct itera_device *device, const char *name,
                                     const struct itera_model_options *options,
                                     struct itera_model **out)
{
    *out = NULL;
    struct itera_config config;
    enum itera_status status = itera_config_find(name, &config);
    if (status)
        return status;
    static const struct itera_model_options defaults;
    if (!options)
        options = &defaults;
    if (options->vocab > 0)
        config.vocab = options->vocab;
    if (options->dropout != 0)
        config.dropout = options->dropout < 0 ? 0 : options->dropout;
    if (options->positions > 0 && config.max_positions > 0)
        config.max_positions = options->positions;
    status = itera_config_validate(&config, name);
    struct itera_model *m = NULL;
    if (!status)
        status = itera_model_allocate(device, &config, &m);
    if (status)
        return status;
    m->layout.integer = !options->exact;
    m->layout.half = find_half(options->exact, options->half);
    float *weights = calloc((size_t)m->layout.elements, sizeof *weights);
    if (weights) {
        itera_layout_initialize(&m->layout, options->seed, weights);
        status = itera_model_write_f32(m, weights);
    } else {
        status = itera_fail(ITERA_ERR_MEMORY, "no memory for %lld weights",
                            (long long)m->layout.elements);
    }
    free(weights);
    if (status)
        itera_model_destroy(&m);
    *out = m;
    return status;
}

/* The weights as they are in memory; free with free(). */
static enum itera_status download_weights(const struct itera_model *model, void **weights)
{
    *weights = malloc((size_t)model->layout.bytes);
    if (!*weights)
        return itera_fail(ITERA_ERR_MEMORY, "no memory for %lld bytes of weights",
                          (long long)model->layout.bytes);
    return itera_buffer_download(model->weights, 0, *weights, (size_t)model->layout.bytes);
}

enum itera_status itera_model_save(const struct itera_model *model, const char *path)
{
    void *weights = NULL;
    char *config = NULL, *tokenizer = NULL, *shapes = NULL;
    enum itera_status status = download_weights(model, &weights);
    if (!status)
        status = itera_config_to_json(&model->config, &config);
    if (!status && model->tokenizer)
        status = itera_tokenizer_to_json(model->tokenizer, &tokenizer);
    if (!status)
        status = itera_layout_shapes(&model->layout, &shapes);
    if (!status) {
        struct itera_safetensors_pair metadata[4] = {{"format", "pt"}, {CONFIG_KEY, config}};
        int n = 2;
        if (tokenizer)
            metadata[n++] = (struct itera_safetensors_pair){TOKENIZER_KEY, tokenizer};
        if (shapes)
            metadata[n++] = (struct itera_safetensors_pair){SHAPES_KEY, shapes};
        status = itera_layout_write(&model->layout, weights, "", path, metadata, n);
    }
    free(weights);
    free(config);
    free(tokenizer);
    free(shapes);
    return status;
}

bool itera_model_rounds_to_half(const struct itera_model *model)
{
    for (int i = 0; i < model->layout.n_params; i++)
        if (model->layout.params[i].matrix &&
            itera_takes_half(&model->layout, model->layout.params[i].dtype))
            return true;
    return false;
}

bool itera_model_is_quantised(const struct itera_model *model)
{
    for (int i = 0; i < model->layout.n_params; i++)
        if (itera_dtype_is_blocks(model->layout.params[i].dtype))
            return true;
    return false;
}

enum itera_status itera_model_read_f32(const struct itera_model *model, float *weights)
{
    void *narrow = NULL;
    enum itera_status status = download_weights(model, &narrow);
    if (!status)
        itera_layout_expand(&model->layout, narrow, weights);
    free(narrow);
    return status;
}

enum itera_status itera_model_write_f32(struct itera_model *model, const float *weights)
{
    if (model->layout.bytes != model->layout.elements * 4)
        return itera_fail(ITERA_ERR_UNSUPPORTED, "the weights of this model are not all f32");
    return itera_buffer_upload(model->weights, 0, weights, (size_t)model->layout.bytes);
}

const struct itera_tokenizer *itera_model_tokenizer(const struct itera_model *model)
{
    return model->tokenizer;
}

enum itera_status itera_model_set_tokenizer(struct itera_model *model,
                                            struct itera_tokenizer *tokenizer)
{
    int32_t size = itera_tokenizer_vocab_size(tokenizer);
    if (size > model->config.vocab)
        return itera_fail(ITERA_ERR_SHAPE,
                          "the tokenizer has %d tokens, the model only %d: it was trained with "
                          "another tokenizer",
                          size, model->config.vocab);
    const struct itera_config *config = &model->config;
    int32_t ends[ITERA_MAX_EOS] = {config->eos};
    for (int32_t i = 0; i < config->n_more_eos; i++)
        ends[i + 1] = config->more_eos[i];
    itera_tokenizer_set_ends(tokenizer, ends, 1 + config->n_more_eos);
    itera_tokenizer_destroy(&model->tokenizer);
    model->tokenizer = tokenizer;
    return ITERA_OK;
}

const struct itera_model_info *itera_model_info(const struct itera_model *model)
{
    return &model->info;
}

enum itera_status itera_model_config_json(const struct itera_model *model, char **json)
{
    return itera_config_to_json(&model->config, json);
}

void itera_bind_graph(struct itera_bindings *b, const struct itera_graph *g,
                      const struct itera_model *model, struct itera_buffer *states,
                      struct itera_buffer *derived)
{
    for (int i = 0; i < model->layout.n_params; i++)
        if (g->param_tensor[i] >= 0)
            itera_bind(b, g->param_tensor[i], model->weights,
                       (size_t)model->layout.params[i].place);
    for (int i = 0; i < g->n_states; i++)
        itera_bind(b, g->states[i].tensor, states, (size_t)g->states[i].offset);
    for (int i = 0; i < g->n_derived; i++)
        itera_bind(b, g->derived[i].tensor, derived, (size_t)g->derived[i].offset);
}

enum itera_status itera_model_prepare(const struct itera_model *model, const struct itera_graph *g,
                                      struct itera_buffer *derived)
{
    if (!g->n_derived)
        return ITERA_OK;
    struct itera_bindings b = {0};
    for (int i = 0; i < model->layout.n_params; i++)
        if (g->prepare_param[i] >= 0)
            itera_bind(&b, g->prepare_param[i], model->weights,
                       (size_t)model->layout.params[i].place);
    for (int i = 0; i < g->n_derived; i++)
        itera_bind(&b, g->derived_in_prepare[i], derived, (size_t)g->derived[i].offset);
    struct itera_executable *executable = NULL;
    enum itera_status status = b.status;
    if (!status)
        status = itera_compile(model->device, g->prepare, b.list, b.n, NULL, NULL, &executable);
    if (!status)
        status = itera_run(executable);
    itera_executable_destroy(&executable);
    itera_bindings_free(&b);
    return status;
}
