/* What a run may be asked for: options, their defaults and their limits. */
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "text/corpus_part.h"
#include "train/trainer_impl.h"

static int64_t count_or(int64_t asked, int64_t absent)
{
    return asked ? asked : absent;
}

/* Of what can be 0: negative asks for that. */
static double value_or(double asked, double absent)
{
    return asked < 0 ? 0 : asked != 0 ? asked : absent;
}

struct itera_train_options itera_train_options_fill(const struct itera_train_options *options)
{
    struct itera_train_options o = {0};
    if (options)
        o = *options;
    o.batch = count_or(o.batch, 8);
    o.seq = count_or(o.seq, 128);
    o.accumulate = count_or(o.accumulate, 1);
    o.min_lr = value_or(o.min_lr, 0.1);
    o.warmup = o.warmup < 0 ? 0 : count_or(o.warmup, -1);
    o.beta1 = value_or(o.beta1, 0.9);
    o.beta2 = value_or(o.beta2, 0.95);
    o.eps = o.eps != 0 ? o.eps : 1e-8;
    o.weight_decay = value_or(o.weight_decay, 0.1);
    o.clip = value_or(o.clip, 1);
    o.dropout = value_or(o.dropout, -1);
    o.aux_weight = value_or(o.aux_weight, -1);
    o.temperature = o.temperature != 0 ? o.temperature : 2;
    o.teacher_weight = value_or(o.teacher_weight, 0.5);
    o.log_every = count_or(o.log_every, 10);
    o.eval_tokens = o.eval_tokens < 0 ? 0 : count_or(o.eval_tokens, 100000);
    return o;
}

/* So that tokens can be counted to the end of the run. */
enum itera_status itera_train_check_length(const struct itera_train_options *o, int64_t steps)
{
    int64_t tokens;
    if (!__builtin_mul_overflow(steps, o->batch * o->seq * o->accumulate, &tokens))
        return ITERA_OK;
    return itera_fail(
        ITERA_ERR_ARGUMENT,
        "training: %lld steps of %lld x %lld x %lld tokens are too many to count; ask for fewer",
        (long long)steps, (long long)o->accumulate, (long long)o->batch, (long long)o->seq);
}

enum itera_status itera_train_check_options(const struct itera_train_options *o)
{
    const int64_t tokens = INT64_C(1) << 24;
    const char *wrong = NULL;
    if (o->batch < 1 || o->seq < 1 || o->batch > tokens || o->seq > tokens / o->batch)
        wrong = "batch and seq must be at least 1, and batch x seq at most 16777216";
    else if (o->accumulate < 1 || o->accumulate > 65536)
        wrong = "accumulate must be from 1 to 65536";
    else if (o->steps < 0 || o->steps > INT64_C(1) << 40)
        wrong = "steps must not be negative";
    else if (!(o->epochs >= 0 && o->epochs < 1e6))
        wrong = "epochs must not be negative";
    else if (!(o->max_minutes >= 0 && o->max_minutes < 1e9))
        wrong = "max_minutes must not be negative";
    else if ((unsigned)o->schedule > ITERA_SCHEDULE_LINEAR)
        wrong = "the schedule is not known";
    else if (!(o->lr >= 0 && o->lr <= 10))
        wrong = "lr must be from 0 to 10";
    else if (!(o->min_lr >= 0 && o->min_lr <= 1))
        wrong = "min_lr, a fraction of lr, must be from 0 to 1";
    else if (!(o->beta1 >= 0 && o->beta1 < 1 && o->beta2 >= 0 && o->beta2 < 1))
        wrong = "beta1 and beta2 must be in [0, 1)";
    else if (!(o->eps > 0 && o->eps < 1))
        wrong = "eps must be between 0 and 1";
    else if (!(o->weight_decay >= 0 && o->weight_decay <= 10))
        wrong = "weight_decay must be from 0 to 10";
    else if (!(o->clip >= 0 && o->clip <= 1e18))
        wrong = "clip must be from 0 to 1e18";
    else if (!(o->dropout >= -1 && o->dropout <= 0.95))
        wrong = "dropout must be at most 0.95";
    else if (!(o->aux_weight >= -1 && o->aux_weight <= 1000))
        wrong = "aux_weight must be at most 1000";
    else if (!(o->temperature > 0 && o->temperature <= 1000))
        wrong = "temperature must be above 0, and at most 1000";
    else if (!(o->teacher_weight >= 0 && o->teacher_weight <= 1))
        wrong = "teacher_weight must be from 0 to 1";
    else if (o->log_every < 1 || o->eval_every < 0 || o->eval_tokens < 0 || o->patience < 0 ||
             o->save_every < 0 || o->warmup < -1 || o->positions < 0 || o->positions > INT32_MAX)
        wrong = "a count is negative";
    if (wrong)
        return itera_fail(ITERA_ERR_ARGUMENT, "training: %s", wrong);
    return itera_train_check_length(o, o->steps); /* before memory is taken for such batches */
}

enum itera_status itera_train_check_positions(int64_t seq, int32_t positions)
{
    if (!positions || seq <= positions)
        return ITERA_OK;
    return itera_fail(ITERA_ERR_ARGUMENT,
                      "training: sequences of %lld tokens are longer than the model's %d "
                      "positions; use %d or less (seq), or a model with more positions",
                      (long long)seq, positions, positions);
}

enum itera_status itera_train_check_directory(const struct itera_train_options *o, bool has_run)
{
    char path[4096];
    if (o->overwrite)
        return ITERA_OK;
    if (has_run)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "%s: has a training run already; go on with it (resume), choose another "
                          "directory, or replace it (overwrite)",
                          o->directory);
    enum itera_status status =
        itera_path_join(path, sizeof path, o->directory, "model.safetensors");
    if (status || !itera_file_exists(path))
        return status;
    return itera_fail(ITERA_ERR_ARGUMENT,
                      "%s: would be replaced; choose another directory, or replace it (overwrite)",
                      path);
}

/* The options outlive the caller's strings. */
enum itera_status itera_train_keep_strings(struct itera_trainer *t)
{
    struct itera_train_options *o = &t->options;
    const char **strings[] = {&o->init, &o->config, &o->preset,  &o->tokenizer,
                              &o->data, &o->valid,  &o->teacher, &o->directory};
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++) {
        if (!*strings[i])
            continue;
        *strings[i] = itera_arena_strdup(t->arena, *strings[i]);
        if (!*strings[i])
            return itera_fail(ITERA_ERR_MEMORY, "training: no memory");
    }
    return ITERA_OK;
}

enum itera_status itera_train_split_data(struct itera_train_options *o, struct itera_arena *arena)
{
    char *train = itera_corpus_name_part(o->data, ITERA_CORPUS_TRAIN);
    char *valid = itera_corpus_name_part(o->data, ITERA_CORPUS_VALID);
    o->data = train ? itera_arena_strdup(arena, train) : NULL;
    o->valid = valid ? itera_arena_strdup(arena, valid) : NULL;
    free(train);
    free(valid);
    return o->data && o->valid ? ITERA_OK : itera_fail(ITERA_ERR_MEMORY, "training: no memory");
}

enum { LEAST_TEXT = 20000 }; /* bytes, of which a part can be set aside */

enum itera_status itera_train_hold_out(struct itera_train_options *o, struct itera_arena *arena)
{
    struct itera_corpus *all = NULL;
    if (!o->hold_out || o->valid || !o->data)
        return ITERA_OK;
    enum itera_status status = itera_corpus_open(o->data, &all);
    const uint64_t bytes = status ? 0 : itera_corpus_bytes(all);
    itera_corpus_destroy(&all);
    return status || bytes < LEAST_TEXT ? status : itera_train_split_data(o, arena);
}
