/* What a new run starts from: its model, and that model's tokenizer. */
#include "core/file.h"
#include "core/log.h"
#include "text/tokenizer_impl.h"
#include "train/trainer_impl.h"

/* The tokenizer's specification when none is given: as large as the configuration's vocabulary. */
static enum itera_status default_tokenizer(struct itera_trainer *t)
{
    struct itera_train_options *o = &t->options;
    struct itera_config config;
    enum itera_status status =
        o->config ? itera_config_load(o->config, &config) : itera_config_preset(o->preset, &config);
    if (status)
        return status;
    /* BPE needs its 256 bytes, the end-of-text token, and merges worth the name. */
    o->tokenizer =
        config.vocab < 512 ? "byte" : itera_arena_printf(t->arena, "bpe:%d", config.vocab);
    return o->tokenizer ? ITERA_OK : itera_fail(ITERA_ERR_MEMORY, "training: no memory");
}

/* The tokenizer that the model is to get; NULL: it brings one, as a loaded model and a teacher
 * do. */
static enum itera_status create_tokenizer(struct itera_trainer *t,
                                          const struct itera_corpus *corpus,
                                          struct itera_tokenizer **out)
{
    struct itera_train_options *o = &t->options;
    const struct itera_model *source = t->model ? t->model : t->teacher;
    const char *path = !t->model ? o->teacher : o->init ? o->init : "the model to start from";
    if (t->model && t->teacher && !itera_model_tokenizer(source)) {
        source = t->teacher;
        path = o->teacher;
    }
    const struct itera_tokenizer *theirs = source ? itera_model_tokenizer(source) : NULL;
    if (theirs && o->tokenizer)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "%s: brings its own tokenizer; its weights mean nothing with another",
                          path);
    if (source && !theirs && !o->tokenizer)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "%s: has no tokenizer; name the file of the one it was trained with",
                          path);
    if (theirs && source == t->model)
        return ITERA_OK;
    if (theirs)
        return itera_tokenizer_copy(theirs, path, out);
    enum itera_status status = o->tokenizer ? ITERA_OK : default_tokenizer(t);
    return status ? status : itera_tokenizer_create(o->tokenizer, corpus, out);
}

enum itera_status itera_train_start_model(struct itera_trainer *t,
                                          const struct itera_corpus *corpus)
{
    struct itera_train_options *o = &t->options;
    struct itera_tokenizer *tokenizer = NULL;
    enum itera_status status = ITERA_OK;
    if (o->init)
        status = itera_model_load_as(t->device, o->init,
                                     &(struct itera_load_options){.expand = true}, &t->model);
    else if (!t->model && !o->config && !o->preset)
        o->preset = "micro";
    if (!status && o->config && !itera_file_exists(o->config)) {
        /* Never a preset of that name. */
        struct itera_config config;
        status = itera_config_load(o->config, &config);
    }
    if (!status)
        status = create_tokenizer(t, corpus, &tokenizer);
    if (!status && !t->model) {
        /* Models may have more rows than their tokenizer has tokens. */
        const struct itera_model_options options = {
            .vocab = t->teacher ? t->teacher->config.vocab : itera_tokenizer_vocab_size(tokenizer),
            .positions = (int32_t)o->positions,
            .seed = o->seed};
        status =
            itera_model_create(t->device, o->config ? o->config : o->preset, &options, &t->model);
    }
    if (!status && tokenizer)
        status = itera_model_set_tokenizer(t->model, tokenizer);
    if (status) {
        itera_tokenizer_destroy(&tokenizer);
        return status;
    }
    struct itera_config *c = &t->model->config;
    if (o->dropout >= 0)
        c->dropout = o->dropout;
    if (o->aux_weight >= 0 && c->experts)
        c->aux_weight = o->aux_weight;
    o->dropout = c->dropout;
    o->aux_weight = c->experts ? c->aux_weight : o->aux_weight;
    return ITERA_OK;
}
