/* Weights between files and memory, in every type. */
#include "model/weights.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "format/json.h"
#include "tensor/blocks.h"

#define HEAD "lm_head.weight"

/* ---- what a file holds ----------------------------------------------------------------------- */

/* A part of a parameter as a file has it. */
struct found {
    const struct itera_safetensor *tensor;
    enum itera_dtype stored;
};

static const char *const block_suffix[] = {[ITERA_Q8] = ".q8", [ITERA_Q4] = ".q4"};
static const enum itera_dtype block_types[] = {ITERA_Q8, ITERA_Q4};

/* The dims of a block tensor in a file: the last one counts bytes. */
static void block_dims(enum itera_dtype dtype, const struct itera_param_part *part, int64_t *dim)
{
    memcpy(dim, part->dim, sizeof part->dim);
    dim[part->rank - 1] = (int64_t)itera_dtype_bytes(dtype, part->dim[part->rank - 1]);
}

/* Looks for <name>.q8 and <name>.q4. */
static enum itera_status find_blocks(const struct itera_safetensors *file,
                                     const struct itera_param *param,
                                     const struct itera_param_part *part, struct found *out)
{
    *out = (struct found){0};
    for (size_t i = 0; i < sizeof block_types / sizeof *block_types; i++) {
        const enum itera_dtype dtype = block_types[i];
        char name[512];
        if ((size_t)snprintf(name, sizeof name, "%s%s", part->name, block_suffix[dtype]) >=
                sizeof name ||
            !itera_safetensors_find(file, name))
            continue;
        const struct itera_safetensor *t;
        int64_t dim[ITERA_MAX_RANK];
        block_dims(dtype, part, dim);
        enum itera_status status = itera_safetensors_expect(file, name, part->rank, dim, &t);
        if (status)
            return status;
        if (t->dtype != ITERA_ST_U8)
            return itera_fail(ITERA_ERR_FORMAT,
                              "%s: tensor %s: found %s, expected the U8 of blocks", t->source,
                              t->name, t->dtype_name);
        if (!param->matrix || part->dim[part->rank - 1] % ITERA_BLOCK)
            return itera_fail(ITERA_ERR_FORMAT, "%s: tensor %s cannot be in %s", t->source, t->name,
                              itera_dtype_name(dtype));
        if (out->tensor || itera_safetensors_find(file, part->name))
            return itera_fail(ITERA_ERR_FORMAT, "%s: tensor %.160s is there in two types",
                              t->source, part->name);
        *out = (struct found){t, dtype};
    }
    return ITERA_OK;
}

static enum itera_status find_part(const struct itera_safetensors *file,
                                   const struct itera_param *param,
                                   const struct itera_param_part *part, struct found *out)
{
    enum itera_status status = find_blocks(file, param, part, out);
    if (status || out->tensor)
        return status;
    status = itera_safetensors_expect(file, part->name, part->rank, part->dim, &out->tensor);
    if (status)
        return status;
    switch (out->tensor->dtype) {
    case ITERA_ST_F16:
        out->stored = ITERA_F16;
        break;
    case ITERA_ST_BF16:
        out->stored = ITERA_BF16;
        break;
    default: /* refused here, before memory is taken for a shape that no bytes may stand behind */
        if (!itera_st_dtype_is_float(out->tensor->dtype))
            return itera_fail(ITERA_ERR_FORMAT,
                              "%s: tensor %.160s: found %s, expected F32, F16, BF16 or F64",
                              out->tensor->source, out->tensor->name, out->tensor->dtype_name);
        out->stored = ITERA_F32;
    }
    return ITERA_OK;
}

enum itera_status itera_layout_find(struct itera_layout *layout,
                                    const struct itera_safetensors *file, bool expand)
{
    for (int i = 0; i < layout->n_params; i++) {
        struct itera_param *param = &layout->params[i];
        for (int k = 0; k < param->n_parts; k++) {
            struct found found;
            enum itera_status status = find_part(file, param, &param->parts[k], &found);
            if (status)
                return status;
            if (k == 0)
                param->stored = found.stored;
            else if (param->stored != found.stored)
                param->stored = ITERA_F32; /* one parameter has one type in memory */
        }
        if (expand)
            param->stored = ITERA_F32;
        param->dtype = param->matrix ? param->stored : ITERA_F32;
    }
    itera_layout_place(layout);
    return ITERA_OK;
}

/* Tensors that the model has no use for: says how many, and the name of one. `used` has an entry per
 * tensor of the file. */
static void warn_of_others(const bool *used, const struct itera_safetensors *file, const char *path,
                           bool tied_head)
{
    size_t count = 0;
    const char *first = "";
    for (size_t i = 0; i < itera_safetensors_count(file); i++) {
        const char *name = itera_safetensors_at(file, i)->name;
        /* Files of other programs repeat the tied head: itera_layout_head_differs. */
        if (used[i] || (tied_head && !strcmp(name, HEAD)))
            continue;
        if (!count++)
            first = name;
    }
    if (count)
        itera_log(ITERA_LOG_WARNING,
                  "%s: %zu %s not part of a model with this configuration, ignored (%s%.160s)",
                  path, count, count == 1 ? "tensor is" : "tensors are",
                  count == 1 ? "" : "the first is ", first);
}

/* ---- reading --------------------------------------------------------------------------------- */

static void *place_of(const struct itera_param *param, void *weights)
{
    return (uint8_t *)weights + param->place;
}

/* The planes of a part of a block parameter in memory. */
static struct itera_blocks part_blocks(const struct itera_param *param,
                                       const struct itera_param_part *part, void *weights)
{
    return itera_blocks_at(param->dtype, place_of(param, weights),
                           itera_shape_elements(&param->shape), part->offset - param->offset);
}

static enum itera_status check_scales(const struct found *f, int64_t blocks)
{
    const uint8_t *at = f->tensor->data;
    const size_t step = itera_dtype_bytes(f->stored, ITERA_BLOCK);
    for (int64_t i = 0; i < blocks; i++, at += step) {
        uint16_t scale;
        memcpy(&scale, at, sizeof scale);
        if ((scale & 0x7c00u) == 0x7c00u)
            return itera_fail(ITERA_ERR_FORMAT,
                              "%s: tensor %s: the scale of block %lld is not finite",
                              f->tensor->source, f->tensor->name, (long long)i);
    }
    return ITERA_OK;
}

/* Blocks into blocks, or expanded, a row of the file at a time. */
static enum itera_status read_blocks(const struct itera_param *param,
                                     const struct itera_param_part *part, const struct found *f,
                                     int64_t elements, void *weights)
{
    const int64_t blocks = elements / ITERA_BLOCK;
    enum itera_status status = check_scales(f, blocks);
    if (!status && param->dtype != f->stored && param->dtype != ITERA_F32)
        status = itera_fail(ITERA_ERR_FORMAT, "%s: tensor %s: expected %s", f->tensor->source,
                            f->tensor->name, itera_dtype_name(param->dtype));
    if (status)
        return status;
    if (param->dtype == f->stored) {
        itera_blocks_from_file(f->stored, f->tensor->data, blocks,
                               part_blocks(param, part, weights));
        return ITERA_OK;
    }
    const size_t step = itera_dtype_bytes(f->stored, ITERA_BLOCK);
    float *to = (float *)place_of(param, weights) + (part->offset - param->offset);
    for (int64_t i = 0; i < blocks; i++, to += ITERA_BLOCK) {
        uint8_t bytes[ITERA_BLOCK];
        uint16_t scale;
        struct itera_blocks one = {bytes, &scale};
        itera_blocks_from_file(f->stored, (const uint8_t *)f->tensor->data + (size_t)i * step, 1,
                               one);
        itera_blocks_expand(f->stored, one, ITERA_BLOCK, to);
    }
    return ITERA_OK;
}

/* One tensor of the file, which must hold finite values, to its place. */
static enum itera_status read_part(const struct itera_param *param,
                                   const struct itera_param_part *part, const struct found *f,
                                   void *weights)
{
    const int64_t skip = part->offset - param->offset;
    if (itera_dtype_is_blocks(f->stored))
        return read_blocks(param, part, f, itera_shape_elements(&param->shape) / param->n_parts,
                           weights);
    enum itera_status status = itera_safetensor_check_finite(f->tensor);
    if (status)
        return status;
    if (param->dtype == ITERA_F32)
        return itera_safetensor_read_f32(f->tensor, 0, f->tensor->count,
                                         (float *)place_of(param, weights) + skip);
    if (f->stored != param->dtype)
        return itera_fail(ITERA_ERR_FORMAT, "%s: tensor %s: found %s, expected %s",
                          f->tensor->source, f->tensor->name, itera_dtype_name(f->stored),
                          itera_dtype_name(param->dtype));
    memcpy((uint16_t *)place_of(param, weights) + skip, f->tensor->data, f->tensor->bytes);
    return ITERA_OK;
}

static int64_t bytes_of(const struct itera_param *param)
{
    return (int64_t)itera_dtype_bytes(param->dtype, itera_shape_elements(&param->shape));
}

enum itera_status itera_layout_read(const struct itera_layout *layout,
                                    const struct itera_safetensors *file, const char *path,
                                    bool tied_head, const struct itera_load_options *options,
                                    void *weights)
{
    /* Marks, and no search by name for each tensor of the file: a model may have 200,000. */
    bool *used = calloc(itera_safetensors_count(file) + 1, sizeof *used);
    enum itera_status status =
        used ? ITERA_OK : itera_fail(ITERA_ERR_MEMORY, "%s: no memory to read it", path);
    int64_t done = 0, total = 0;
    for (int i = 0; i < layout->n_params; i++)
        total += bytes_of(&layout->params[i]);
    for (int i = 0; i < layout->n_params && !status; i++) {
        const struct itera_param *param = &layout->params[i];
        for (int k = 0; k < param->n_parts && !status; k++) {
            struct found f;
            status = find_part(file, param, &param->parts[k], &f);
            if (!status)
                status = read_part(param, &param->parts[k], &f, weights);
            if (!status)
                used[f.tensor - itera_safetensors_at(file, 0)] = true;
            if (!status)
                done += bytes_of(param) / param->n_parts;
            if (!status && options && options->progress &&
                options->progress(options->user, done, total))
                status = itera_fail(ITERA_ERR_CANCELLED, "%s: reading it was stopped", path);
        }
    }
    /* Also of a failure: zeros where the file broke off may have been its reason. */
    enum itera_status complete = itera_safetensors_check(file);
    if (complete)
        status = complete;
    if (!status)
        warn_of_others(used, file, path, tied_head);
    free(used);
    return status;
}

/* Reads the file's tensor of this name, with the shape of `like`, into floats. */
static enum itera_status read_as(const struct itera_param *like, const char *name,
                                 const struct itera_safetensors *file, float *out)
{
    struct itera_param_part part = like->parts[0];
    part.name = name;
    part.offset = 0;
    struct itera_param param = *like;
    param.offset = param.place = 0;
    param.dtype = ITERA_F32;
    struct found f;
    enum itera_status status = find_part(file, &param, &part, &f);
    return status ? status : read_part(&param, &part, &f, out);
}

enum itera_status itera_layout_head_differs(const struct itera_layout *layout,
                                            const struct itera_safetensors *file, const char *path,
                                            bool *differs)
{
    static const char *const heads[] = {HEAD, HEAD ".q8", HEAD ".q4"};
    *differs = false;
    bool there = false;
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        there |= itera_safetensors_find(file, heads[i]) != NULL;
    if (!there)
        return ITERA_OK;
    const struct itera_param *embedding = &layout->params[0]; /* every family declares it first */
    const size_t n = (size_t)itera_shape_elements(&embedding->shape);
    /* That both are there in this shape is known before memory is taken for them. */
    struct itera_param_part part = embedding->parts[0];
    struct found f;
    enum itera_status status = find_part(file, embedding, &part, &f);
    part.name = HEAD;
    if (!status)
        status = find_part(file, embedding, &part, &f);
    if (status)
        return status;
    float *values = malloc(2 * n * sizeof *values);
    if (!values)
        return itera_fail(ITERA_ERR_MEMORY, "%s: no memory to compare the head with the embeddings",
                          path);
    status = read_as(embedding, embedding->parts[0].name, file, values);
    if (!status)
        status = read_as(embedding, HEAD, file, values + n);
    for (size_t i = 0; i < n && !status && !*differs; i++)
        *differs = values[i] != values[n + i];
    free(values);
    return status;
}

void itera_layout_expand(const struct itera_layout *layout, const void *weights, float *out)
{
    for (int i = 0; i < layout->n_params; i++) {
        const struct itera_param *param = &layout->params[i];
        const int64_t n = itera_shape_elements(&param->shape);
        const uint8_t *from = (const uint8_t *)weights + param->place;
        const uint16_t *half = (const uint16_t *)(const void *)from;
        float *to = out + param->offset;
        switch (param->dtype) {
        case ITERA_F16:
            for (int64_t k = 0; k < n; k++)
                to[k] = itera_f16_to_f32(half[k]);
            break;
        case ITERA_BF16:
            for (int64_t k = 0; k < n; k++)
                to[k] = itera_bf16_to_f32(half[k]);
            break;
        case ITERA_Q8:
        case ITERA_Q4: {
            struct itera_blocks blocks =
                itera_blocks_at(param->dtype, (void *)(uintptr_t)from, n, 0);
            itera_blocks_expand(param->dtype, blocks, n, to);
            break;
        }
        default:
            memcpy(to, from, (size_t)n * sizeof *to);
        }
    }
}

/* ---- writing --------------------------------------------------------------------------------- */

static enum itera_st_dtype file_type(enum itera_dtype stored)
{
    switch (stored) {
    case ITERA_F16:
        return ITERA_ST_F16;
    case ITERA_BF16:
        return ITERA_ST_BF16;
    case ITERA_Q8:
    case ITERA_Q4:
        return ITERA_ST_U8;
    default:
        return ITERA_ST_F32;
    }
}

/* The part's bytes as the file is to have them: those in memory, or a copy in the arena. */
static const void *file_bytes(struct itera_arena *arena, const struct itera_param *param,
                              const struct itera_param_part *part, const void *weights)
{
    const int64_t n = itera_shape_elements(&param->shape) / param->n_parts;
    const int64_t skip = part->offset - param->offset;
    const uint8_t *from = (const uint8_t *)weights + param->place;
    if (param->stored == param->dtype && !itera_dtype_is_blocks(param->dtype))
        return from + itera_dtype_bytes(param->dtype, skip);
    void *copy = itera_arena_calloc(arena, itera_dtype_bytes(param->stored, n), 1);
    if (!copy)
        return NULL;
    if (itera_dtype_is_blocks(param->stored)) {
        itera_blocks_to_file(param->stored, part_blocks(param, part, (void *)(uintptr_t)weights),
                             n / ITERA_BLOCK, copy);
        return copy;
    }
    const float *wide = (const float *)(const void *)from + skip;
    for (int64_t k = 0; k < n; k++)
        ((uint16_t *)copy)[k] =
            param->stored == ITERA_F16 ? itera_f32_to_f16(wide[k]) : itera_f32_to_bf16(wide[k]);
    return copy;
}

/* The entry of a part; a NULL name when there is no memory. */
static struct itera_safetensors_entry make_entry(struct itera_arena *arena,
                                                 const struct itera_param *param,
                                                 const struct itera_param_part *part,
                                                 const char *prefix, const void *weights)
{
    const bool blocks = itera_dtype_is_blocks(param->stored);
    struct itera_safetensors_entry e = {.dtype = file_type(param->stored), .rank = part->rank};
    int64_t dim[ITERA_MAX_RANK];
    memcpy(dim, part->dim, sizeof dim);
    if (blocks)
        block_dims(param->stored, part, dim);
    for (int r = 0; r < part->rank; r++)
        e.dim[r] = dim[r];
    e.data = file_bytes(arena, param, part, weights);
    if (e.data)
        e.name = itera_arena_printf(arena, "%s%s%s", prefix, part->name,
                                    blocks ? block_suffix[param->stored] : "");
    return e;
}

enum itera_status itera_layout_write(const struct itera_layout *layout, const void *weights,
                                     const char *prefix, const char *path,
                                     const struct itera_safetensors_pair *metadata, int n_metadata)
{
    size_t n = 0;
    for (int i = 0; i < layout->n_params; i++)
        n += (size_t)layout->params[i].n_parts;
    struct itera_safetensors_entry *entries = calloc(n + 1, sizeof *entries);
    struct itera_arena *arena = itera_arena_create(0);
    bool memory = entries && arena;
    size_t at = 0;
    for (int i = 0; i < layout->n_params && memory; i++) {
        const struct itera_param *param = &layout->params[i];
        for (int k = 0; k < param->n_parts && memory; k++, at++) {
            entries[at] = make_entry(arena, param, &param->parts[k], prefix, weights);
            memory = entries[at].name != NULL;
        }
    }
    enum itera_status status =
        memory ? itera_safetensors_write(path, entries, n, metadata, (size_t)n_metadata)
               : itera_fail(ITERA_ERR_MEMORY, "%s: no memory to write a model", path);
    free(entries);
    itera_arena_destroy(&arena);
    return status;
}

enum itera_status itera_layout_shapes(const struct itera_layout *layout, char **json)
{
    *json = NULL;
    json_t *shapes = json_object();
    bool memory = shapes != NULL;
    for (int i = 0; i < layout->n_params; i++) {
        const struct itera_param *param = &layout->params[i];
        for (int k = 0; k < param->n_parts && itera_dtype_is_blocks(param->stored); k++) {
            json_t *dims = json_array();
            for (int r = 0; r < param->parts[k].rank; r++)
                memory &= !json_array_append_new(dims, json_integer(param->parts[k].dim[r]));
            memory &= !json_object_set_new(shapes, param->parts[k].name, dims);
        }
    }
    if (memory && json_object_size(shapes))
        memory = (*json = itera_json_write(shapes, JSON_COMPACT)) != NULL;
    json_decref(shapes);
    return memory ? ITERA_OK
                  : itera_fail(ITERA_ERR_MEMORY, "no memory to describe quantised tensors");
}
