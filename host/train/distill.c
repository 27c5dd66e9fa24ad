/* Distillation inside a training step: a teacher's program runs before the student's and leaves its
 * logits where that one's loss reads them. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/file.h"
#include "core/log.h"
#include "program/precision.h"
#include "train/trainer_impl.h"

/* ---- the programs ---------------------------------------------------------------------------- */

static int32_t record_scaled(struct itera_program *p, int32_t x, double factor)
{
    struct itera_attr attr = {.scale = (float)factor};
    return itera_record(p, ITERA_OP_scale, &attr, &x, (int32_t[]){ITERA_NEW});
}

static int32_t record_sum(struct itera_program *p, int32_t a, int32_t b)
{
    return itera_record(p, ITERA_OP_add, NULL, (int32_t[]){a, b}, (int32_t[]){ITERA_NEW});
}

int32_t itera_train_distill_losses(struct itera_train_program *t,
                                   const struct itera_train_teaching *teaching, int32_t targets,
                                   struct itera_bindings *b, int32_t *ce, int32_t *aux, int32_t *kl)
{
    struct itera_program *p = t->train.graph.p;
    const double weight = teaching->weight;
    const int64_t dim[3] = {t->batch, t->seq, teaching->teacher->config.vocab};
    int32_t logits = itera_bound(p, "teacher logits", ITERA_F32, 3, dim);
    struct itera_attr attr = {.scale = (float)teaching->temperature};
    p->part = ITERA_PART_LOSS;
    *ce = itera_record(p, ITERA_OP_cross_entropy, NULL, (int32_t[]){t->train.graph.logits, targets},
                       (int32_t[]){ITERA_NEW, ITERA_NEW});
    *kl = itera_record(p, ITERA_OP_kl_loss, &attr, (int32_t[]){t->train.graph.logits, logits},
                       (int32_t[]){ITERA_NEW});
    *aux = itera_graph_aux_loss(&t->train.graph);
    if (p->status)
        return ITERA_NONE;
    p->status =
        itera_buffer_create(t->device, (size_t)(dim[0] * dim[1] * dim[2]) * 4, &t->teacher_logits);
    itera_bind(b, logits, t->teacher_logits, 0);
    /* A term without weight is only looked at: its gradient costs nothing then, and what remains is
     * exactly a loss without it. */
    int32_t loss = weight < 1 ? *ce : *kl;
    if (weight > 0 && weight < 1)
        loss = record_sum(p, record_scaled(p, *ce, 1 - weight), record_scaled(p, *kl, weight));
    return *aux < 0 ? loss : record_sum(p, loss, *aux);
}

/* Whether its products gain by f16 operands: those with narrower weights than that have kernels of
 * their own. */
static bool has_wide_weights(const struct itera_model *model)
{
    for (int i = 0; i < model->layout.n_params; i++) {
        enum itera_dtype dtype = model->layout.params[i].dtype;
        if (dtype != ITERA_F32 && dtype != ITERA_F16)
            return false;
    }
    return true;
}

static enum itera_status lower_precision(void *user, struct itera_model_phase *phase)
{
    (void)user;
    return itera_lower_precision(phase->graph.p);
}

enum itera_status itera_train_distill_compile(struct itera_train_program *t,
                                              const struct itera_model *teacher)
{
    const struct itera_phase_options options = {
        .phase = ITERA_PHASE_EVAL, .batch = t->batch, .time = t->seq, .logits = true};
    const bool lower = t->precision == ITERA_PRECISION_F16 && has_wide_weights(teacher);
    itera_phase_record(&t->teacher, teacher, &options);
    itera_phase_fuse(&t->teacher, lower ? lower_precision : NULL, NULL);
    return itera_phase_compile(
        &t->teacher, &(struct itera_phase_buffers){.ids = t->ids, .logits = t->teacher_logits});
}

enum itera_status itera_train_distill_compile_loss(struct itera_train_program *t)
{
    struct itera_bindings b = {0};
    itera_program_destroy(&t->teacher_loss); /* what a failed attempt left */
    enum itera_status status = itera_program_create(&t->teacher_loss);
    if (status)
        return status;
    struct itera_program *p = t->teacher_loss;
    const struct itera_shape *logits = &t->teacher.graph.p->tensors[t->teacher.graph.logits].shape;
    const int64_t one = 1;
    p->part = ITERA_PART_LOSS;
    int32_t in[2] = {itera_bound(p, "teacher logits", ITERA_F32, logits->rank, logits->dim),
                     itera_bound(p, "targets", ITERA_I32, 2, logits->dim)};
    int32_t out[2] = {itera_bound(p, "loss", ITERA_F32, 1, &one), ITERA_NEW};
    itera_record(p, ITERA_OP_cross_entropy, NULL, in, out);
    itera_bind(&b, in[0], t->teacher_logits, 0);
    itera_bind(&b, in[1], t->targets, 0);
    itera_bind(&b, out[0], t->figures, FIGURE_LOSS * 4);
    status = b.status;
    if (!status)
        status = itera_compile(t->device, p, b.list, b.n, NULL, NULL, &t->teacher_loss_run);
    itera_bindings_free(&b);
    return status;
}

/* ---- the teacher ----------------------------------------------------------------------------- */

/* Whether the run would write its model over its teacher, which is a file or a directory. */
static bool is_own_model(const struct itera_trainer *t)
{
    char path[4096];
    struct stat teacher, own;
    const char *directory = t->options.directory;
    if (!directory || stat(t->options.teacher, &teacher) != 0)
        return false;
    if (!S_ISDIR(teacher.st_mode)) {
        if (itera_path_join(path, sizeof path, directory, "model.safetensors"))
            return false;
        directory = path;
    }
    return stat(directory, &own) == 0 && teacher.st_dev == own.st_dev &&
           teacher.st_ino == own.st_ino;
}

enum itera_status itera_train_teacher_open(struct itera_trainer *t)
{
    if (!t->options.teacher)
        return ITERA_OK;
    if (is_own_model(t))
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "%s: the teacher would be replaced by its student; choose another "
                          "directory",
                          t->options.teacher);
    return itera_model_load(t->device, t->options.teacher, &t->teacher);
}

static enum itera_status same_tokenizer(const struct itera_tokenizer *a,
                                        const struct itera_tokenizer *b, bool *same)
{
    char *text[2] = {NULL, NULL};
    enum itera_status status = itera_tokenizer_to_json(a, &text[0]);
    if (!status)
        status = itera_tokenizer_to_json(b, &text[1]);
    *same = !status && strcmp(text[0], text[1]) == 0;
    free(text[0]);
    free(text[1]);
    return status;
}

enum itera_status itera_train_teacher_check(const struct itera_train_options *o,
                                            const struct itera_model *student,
                                            const struct itera_model *teacher)
{
    const char *path = o->init ? o->init : "the student";
    const int32_t positions = teacher->config.max_positions;
    if (student && student->config.vocab != teacher->config.vocab)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "%s: has a vocabulary of %d, and its teacher %s one of %d; a student "
                          "needs the vocabulary of its teacher: start it from a preset or "
                          "configuration, or choose another teacher",
                          path, student->config.vocab, o->teacher, teacher->config.vocab);
    bool same = true;
    enum itera_status status = ITERA_OK;
    /* Where only one has a tokenizer, it can only be trusted to be the other's. */
    if (student && teacher->tokenizer && student->tokenizer)
        status = same_tokenizer(student->tokenizer, teacher->tokenizer, &same);
    if (!status && !same)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "%s: has another tokenizer than its teacher %s, to whom the same ids are "
                          "other text; start it from a preset or configuration, or choose another "
                          "teacher",
                          path, o->teacher);
    if (!status && positions && o->seq > positions)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "%s: sequences of %lld tokens are longer than this teacher's %d "
                          "positions; use %d or less (seq), or a teacher with more positions",
                          o->teacher, (long long)o->seq, positions, positions);
    return status;
}

/* ---- telling teachers apart ------------------------------------------------------------------ */

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 32;
}

static enum itera_status hash_file(const char *path, uint64_t *hash)
{
    struct itera_map map;
    enum itera_status status = itera_map_open(path, &map);
    if (status)
        return status;
    *hash = mix(*hash, map.size);
    for (size_t i = 0; i < map.size; i += 8) {
        uint64_t word = 0;
        memcpy(&word, map.data + i, map.size - i < 8 ? map.size - i : 8);
        *hash = mix(*hash, word);
    }
    status = itera_map_check(&map);
    itera_map_close(&map);
    return status;
}

/* What a model directory is read from. */
static int is_model_file(const struct dirent *entry)
{
    static const char *const ends[] = {".safetensors", ".json"};
    const size_t length = strlen(entry->d_name);
    for (int i = 0; i < 2; i++) {
        size_t n = strlen(ends[i]);
        if (length > n && strcmp(entry->d_name + length - n, ends[i]) == 0)
            return 1;
    }
    return 0;
}

/* In the order of bytes, whatever the locale. */
static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

enum itera_status itera_train_files_hash(const char *path, uint64_t *hash)
{
    *hash = UINT64_C(0x243f6a8885a308d3);
    if (!itera_is_directory(path))
        return hash_file(path, hash);
    struct dirent **entries = NULL;
    int n = scandir(path, &entries, is_model_file, by_name);
    enum itera_status status =
        n < 0 ? itera_fail(ITERA_ERR_IO, "%s: cannot be listed", path) : ITERA_OK;
    for (int i = 0; i < n; i++) {
        char file[4096];
        if (!status)
            status = itera_path_join(file, sizeof file, path, entries[i]->d_name);
        if (!status)
            status = hash_file(file, hash);
        free(entries[i]);
    }
    free(entries);
    return status;
}
