#include "program/program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "tensor/blocks.h"

enum itera_status itera_program_create(struct itera_program **out)
{
    *out = NULL;
    struct itera_program *p = calloc(1, sizeof *p);
    struct itera_arena *arena = itera_arena_create(0);
    if (!p || !arena) {
        free(p);
        itera_arena_destroy(&arena);
        return itera_fail(ITERA_ERR_MEMORY, "no memory for a program");
    }
    p->arena = arena;
    *out = p;
    return ITERA_OK;
}

void itera_program_destroy(struct itera_program **program)
{
    struct itera_program *p = *program;
    if (!p)
        return;
    itera_arena_destroy(&p->arena);
    free(p->tensors);
    free(p->ops);
    free(p);
    *program = NULL;
}

/* Room for one more element of *array; false (and the status set) when memory ran out. */
static bool grow(struct itera_program *p, void **array, int32_t n, int32_t *cap, size_t size)
{
    if (n < *cap)
        return true;
    int32_t wider = *cap ? *cap * 2 : 64;
    void *moved = realloc(*array, (size_t)wider * size);
    if (!moved) {
        p->status = itera_fail(ITERA_ERR_MEMORY, "no memory to record a program of %d entries", n);
        return false;
    }
    *array = moved;
    *cap = wider;
    return true;
}

static int32_t add_tensor(struct itera_program *p, struct itera_tensor t)
{
    if (p->status || !grow(p, (void **)&p->tensors, p->n_tensors, &p->cap_tensors, sizeof t))
        return ITERA_NONE;
    int32_t id = p->n_tensors++;
    if (t.base < 0)
        t.base = id;
    p->tensors[id] = t;
    return id;
}

static bool usable(const struct itera_program *p, int32_t id)
{
    return !p->status && id >= 0 && id < p->n_tensors;
}

static int32_t new_tensor(struct itera_program *p, enum itera_tensor_kind kind, const char *name,
                          enum itera_dtype dtype, int rank, const int64_t *dim)
{
    if (p->status)
        return ITERA_NONE;
    const char *kept = name ? itera_arena_strdup(p->arena, name) : NULL;
    if (name && !kept) {
        p->status = itera_fail(ITERA_ERR_MEMORY, "no memory for the name of a tensor");
        return ITERA_NONE;
    }
    /* Sizes stay below 2^48 bytes, so that no later product can overflow. */
    int64_t elements = 1;
    for (int i = 0; i < rank; i++) {
        if (dim[i] < 0 || (dim[i] && elements > ((int64_t)1 << 46) / dim[i])) {
            char text[96];
            struct itera_shape s = itera_shape_make(rank, dim);
            p->status =
                itera_fail(ITERA_ERR_LIMIT, "tensor %s %s is too large",
                           name ? name : "(activation)", itera_shape_text(&s, text, sizeof text));
            return ITERA_NONE;
        }
        elements *= dim[i] ? dim[i] : 1;
    }
    return add_tensor(p, (struct itera_tensor){.dtype = dtype,
                                               .kind = kind,
                                               .shape = itera_shape_make(rank, dim),
                                               .base = -1,
                                               .name = kept});
}

int32_t itera_bound(struct itera_program *p, const char *name, enum itera_dtype dtype, int rank,
                    const int64_t *dim)
{
    return new_tensor(p, ITERA_BOUND, name, dtype, rank, dim);
}

int32_t itera_activation(struct itera_program *p, enum itera_dtype dtype, int rank,
                         const int64_t *dim)
{
    return new_tensor(p, ITERA_ACTIVATION, NULL, dtype, rank, dim);
}

int32_t itera_view_cols(struct itera_program *p, int32_t x, int64_t start, int64_t count)
{
    if (!usable(p, x))
        return ITERA_NONE;
    struct itera_tensor t = p->tensors[x];
    int64_t cols = itera_shape_cols(&t.shape);
    if (start < 0 || count < 1 || start + count > cols) {
        p->status =
            itera_fail(ITERA_ERR_SHAPE, "view of columns %lld to %lld of a tensor with %lld",
                       (long long)start, (long long)(start + count), (long long)cols);
        return ITERA_NONE;
    }
    if (itera_dtype_is_blocks(t.dtype)) {
        p->status = itera_fail(ITERA_ERR_SHAPE, "view of columns of a %s tensor, which has none",
                               itera_dtype_name(t.dtype));
        return ITERA_NONE;
    }
    t.shape.dim[t.shape.rank - 1] = count;
    t.offset += start;
    return add_tensor(p, t);
}

int32_t itera_view_last(struct itera_program *p, int32_t x)
{
    if (!usable(p, x))
        return ITERA_NONE;
    struct itera_tensor t = p->tensors[x];
    if (t.shape.rank != 3) {
        p->status = itera_fail(ITERA_ERR_SHAPE, "view of the last step of a tensor of rank %d",
                               t.shape.rank);
        return ITERA_NONE;
    }
    int64_t steps = t.shape.dim[1];
    t.offset += (steps - 1) * t.shape.ld;
    t.shape = (struct itera_shape){
        .rank = 2, .dim = {t.shape.dim[0], t.shape.dim[2], 1, 1}, .ld = steps * t.shape.ld};
    return add_tensor(p, t);
}

int32_t itera_view_dims(struct itera_program *p, int32_t x, int rank, const int64_t *dim)
{
    if (!usable(p, x))
        return ITERA_NONE;
    struct itera_tensor t = p->tensors[x];
    struct itera_shape wanted = itera_shape_make(rank, dim);
    bool contiguous = t.shape.ld == itera_shape_cols(&t.shape) || itera_shape_rows(&t.shape) == 1;
    bool same_cols = itera_shape_cols(&wanted) == itera_shape_cols(&t.shape);
    if (itera_shape_elements(&wanted) != itera_shape_elements(&t.shape) ||
        (!contiguous && !same_cols)) {
        char a[96], b[96];
        p->status = itera_fail(ITERA_ERR_SHAPE, "a tensor %s cannot be seen as %s",
                               itera_shape_text(&t.shape, a, sizeof a),
                               itera_shape_text(&wanted, b, sizeof b));
        return ITERA_NONE;
    }
    if (same_cols)
        wanted.ld = t.shape.ld;
    t.shape = wanted;
    return add_tensor(p, t);
}

/* Gathers the operand shapes of an op for its rules. */
struct operands {
    struct itera_operand_shape in_shape[ITERA_MAX_IN], out_shape[ITERA_MAX_OUT];
    const struct itera_operand_shape *in[ITERA_MAX_IN], *out[ITERA_MAX_OUT];
};

static struct itera_operand_shape operand_shape(const struct itera_program *p, int32_t id)
{
    return (struct itera_operand_shape){p->tensors[id].dtype, p->tensors[id].shape};
}

int32_t itera_record(struct itera_program *p, enum itera_op_kind kind,
                     const struct itera_attr *attr, const int32_t *in, int32_t *out)
{
    const struct itera_op_info *info = itera_op_info(kind);
    if (p->status)
        goto none;
    struct itera_op op = {.kind = kind, .part = p->part};
    if (attr)
        op.attr = *attr;
    struct operands shapes = {0};
    for (int i = 0; i < ITERA_MAX_IN; i++) {
        op.in[i] = i < info->n_in ? in[i] : ITERA_NONE;
        if (op.in[i] >= 0 && op.in[i] < p->n_tensors) {
            shapes.in_shape[i] = operand_shape(p, op.in[i]);
            shapes.in[i] = &shapes.in_shape[i];
        } else if (i < info->n_in && !(info->optional_in >> i & 1)) {
            p->status = itera_fail(ITERA_ERR_ARGUMENT, "%s: operand %s is missing", info->name,
                                   info->in_name[i]);
            goto none;
        }
    }
    for (int i = 0; i < info->n_out; i++)
        if (out[i] >= 0)
            shapes.out_shape[i] = operand_shape(p, out[i]);
    p->status = info->def->infer(&op.attr, shapes.in, shapes.out_shape);
    if (p->status)
        goto none;
    for (int i = 0; i < ITERA_MAX_OUT; i++) {
        op.out[i] = i < info->n_out ? out[i] : ITERA_NONE;
        if (op.out[i] == ITERA_NONE) {
            if (i < info->n_out && !(info->optional_out >> i & 1)) {
                p->status = itera_fail(ITERA_ERR_ARGUMENT, "%s: output %s is missing", info->name,
                                       info->out_name[i]);
                goto none;
            }
            continue;
        }
        const struct itera_operand_shape *s = &shapes.out_shape[i];
        if (op.out[i] == ITERA_NEW) {
            op.out[i] = itera_activation(p, s->dtype, s->shape.rank, s->shape.dim);
            if (p->status)
                goto none;
        } else {
            /* An existing output must hold the same matrix; its leading dims are its own. */
            struct itera_operand_shape given = operand_shape(p, op.out[i]);
            if (given.dtype != s->dtype ||
                itera_shape_cols(&given.shape) != itera_shape_cols(&s->shape) ||
                itera_shape_rows(&given.shape) != itera_shape_rows(&s->shape)) {
                char a[96], b[96];
                p->status =
                    itera_fail(ITERA_ERR_SHAPE, "%s: output %s is %s, expected %s", info->name,
                               info->out_name[i], itera_shape_text(&given.shape, a, sizeof a),
                               itera_shape_text(&s->shape, b, sizeof b));
                goto none;
            }
        }
        out[i] = op.out[i];
    }
    if (!grow(p, (void **)&p->ops, p->n_ops, &p->cap_ops, sizeof op))
        goto none;
    p->ops[p->n_ops++] = op;
    return op.out[0];
none:
    for (int i = 0; i < info->n_out; i++)
        out[i] = ITERA_NONE;
    return ITERA_NONE;
}

struct itera_cost itera_op_cost(const struct itera_program *p, const struct itera_op *op)
{
    const struct itera_op_info *info = itera_op_info(op->kind);
    struct operands shapes = {0};
    struct itera_cost cost = {0};
    for (int i = 0; i < info->n_in; i++) {
        if (op->in[i] < 0)
            continue;
        shapes.in_shape[i] = operand_shape(p, op->in[i]);
        shapes.in[i] = &shapes.in_shape[i];
        double bytes = itera_operand_bytes(&shapes.in_shape[i]);
        cost.bytes += info->written_in >> i & 1 ? 2 * bytes : bytes;
    }
    for (int i = 0; i < info->n_out; i++) {
        if (op->out[i] < 0)
            continue;
        shapes.out_shape[i] = operand_shape(p, op->out[i]);
        shapes.out[i] = &shapes.out_shape[i];
        cost.bytes += itera_operand_bytes(&shapes.out_shape[i]);
    }
    if (info->def->cost)
        info->def->cost(&op->attr, shapes.in, shapes.out, &cost);
    return cost;
}

struct itera_cost itera_program_cost(const struct itera_program *p,
                                     struct itera_cost parts[ITERA_PART_COUNT])
{
    struct itera_cost total = {0};
    if (parts)
        memset(parts, 0, ITERA_PART_COUNT * sizeof *parts);
    for (int32_t i = 0; i < p->n_ops; i++) {
        struct itera_cost c = itera_op_cost(p, &p->ops[i]);
        total.flops += c.flops;
        total.bytes += c.bytes;
        if (parts) {
            parts[p->ops[i].part].flops += c.flops;
            parts[p->ops[i].part].bytes += c.bytes;
        }
    }
    return total;
}

static void print_operand(FILE *f, const struct itera_program *p, const char *operand, int32_t id)
{
    char text[96];
    const struct itera_tensor *t = &p->tensors[id];
    fprintf(f, " %s=%%%d", operand, id);
    if (t->base != id)
        fprintf(f, "@%%%d+%lld", t->base, (long long)t->offset);
    if (t->name)
        fprintf(f, ":%s", t->name);
    fprintf(f, "%s", itera_shape_text(&t->shape, text, sizeof text));
}

char *itera_program_text(const struct itera_program *p)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (!f)
        return NULL;
    for (int32_t i = 0; i < p->n_ops; i++) {
        const struct itera_op *op = &p->ops[i];
        const struct itera_op_info *info = itera_op_info(op->kind);
        fprintf(f, "%4d %-11s %s", i, itera_part_name(op->part), info->name);
        for (int k = 0; k < info->n_in; k++)
            if (op->in[k] >= 0)
                print_operand(f, p, info->in_name[k], op->in[k]);
        fprintf(f, " ->");
        for (int k = 0; k < info->n_out; k++)
            if (op->out[k] >= 0)
                print_operand(f, p, info->out_name[k], op->out[k]);
        fprintf(f, "\n");
    }
    fclose(f);
    return text;
}
