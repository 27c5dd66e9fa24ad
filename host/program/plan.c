#include "program/plan.h"

#include <stdlib.h>
#include <string.h>

#include "core/log.h"

struct lifetime {
    int32_t id;
    int32_t first, last; /* op indices, inclusive */
    int64_t bytes;
    int64_t offset;
    int32_t shares; /* index of the lifetime whose storage this one continues; -1: its own */
};

static int by_size(const void *a, const void *b)
{
    const struct lifetime *x = a, *y = b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x->id < y->id ? -1 : 1;
}

/* Lifetimes of the activations, by base tensor. Those that an op of a chain has live until it runs. */
static void find_lifetimes(const struct itera_program *p, const struct itera_plan_chains *chains,
                           struct lifetime *lives)
{
    for (int32_t t = 0; t < p->n_tensors; t++)
        lives[t] = (struct lifetime){.id = t, .first = INT32_MAX, .last = -1, .shares = -1};
    for (int32_t i = 0; i < p->n_ops; i++) {
        const int32_t until = chains ? chains->until[i] : i;
        for (int k = 0; k < ITERA_MAX_IN + ITERA_MAX_OUT; k++) {
            int32_t t = k < ITERA_MAX_IN ? p->ops[i].in[k] : p->ops[i].out[k - ITERA_MAX_IN];
            if (t < 0 || (chains && chains->unmade[p->tensors[t].base]))
                continue;
            struct lifetime *l = &lives[p->tensors[t].base];
            if (i < l->first)
                l->first = i;
            if (until > l->last)
                l->last = until;
        }
    }
}

/* Lets output 0 continue in the storage of an input that dies at the op, where the op allows it, is in
 * no chain, and both are whole tensors of one size. */
static void share_in_place(const struct itera_program *p, const struct itera_plan_chains *chains,
                           struct lifetime *lives)
{
    for (int32_t i = 0; i < p->n_ops; i++) {
        const struct itera_op *op = &p->ops[i];
        const struct itera_op_def *def = itera_op_info(op->kind)->def;
        if (!def->inplace || (chains && chains->member[i]))
            continue;
        int32_t in = op->in[def->inplace - 1], out = op->out[0];
        if (in < 0 || out < 0 || in == out)
            continue;
        const struct itera_tensor *a = &p->tensors[in], *b = &p->tensors[out];
        if (a->base != in || b->base != out || a->kind != ITERA_ACTIVATION ||
            b->kind != ITERA_ACTIVATION || a->dtype != b->dtype ||
            itera_shape_elements(&a->shape) != itera_shape_elements(&b->shape) ||
            lives[in].last != i || lives[out].first != i)
            continue;
        bool read_twice = false; /* the same input in another role would be overwritten under it */
        for (int k = 0; k < ITERA_MAX_IN; k++)
            read_twice |=
                k != def->inplace - 1 && op->in[k] >= 0 && p->tensors[op->in[k]].base == in;
        if (read_twice)
            continue;
        int32_t root = in;
        while (lives[root].shares >= 0)
            root = lives[root].shares;
        lives[out].shares = root;
        lives[root].last = lives[out].last;
        lives[in].last = lives[out].last;
    }
}

enum itera_status itera_plan_create(const struct itera_program *p, int64_t align,
                                    const struct itera_plan_chains *chains, struct itera_plan *out)
{
    *out = (struct itera_plan){0};
    size_t n = (size_t)p->n_tensors + 1;
    struct lifetime *lives = malloc(n * sizeof *lives);
    struct lifetime *order = malloc(n * sizeof *order);
    struct lifetime **placed = malloc(n * sizeof *placed);
    int64_t *offset = malloc(n * sizeof *offset);
    if (!lives || !order || !placed || !offset) {
        free(lives);
        free(order);
        free(placed);
        free(offset);
        return itera_fail(ITERA_ERR_MEMORY, "no memory to plan a program");
    }
    find_lifetimes(p, chains, lives);
    share_in_place(p, chains, lives);
    int count = 0;
    for (int32_t t = 0; t < p->n_tensors; t++) {
        const struct itera_tensor *x = &p->tensors[t];
        offset[t] = -1;
        if (x->base != t || x->kind != ITERA_ACTIVATION || lives[t].last < 0 ||
            lives[t].shares >= 0)
            continue;
        int64_t bytes = (int64_t)itera_dtype_bytes(x->dtype, itera_shape_elements(&x->shape));
        lives[t].bytes = (bytes + align - 1) / align * align;
        order[count++] = lives[t];
    }
    /* Largest first, each at the lowest gap among those whose lifetimes overlap its own. placed[]
     * is kept in order of offset. */
    qsort(order, (size_t)count, sizeof *order, by_size);
    int n_placed = 0;
    for (int i = 0; i < count; i++) {
        struct lifetime *l = &order[i];
        int64_t at = 0;
        for (int k = 0; k < n_placed; k++) {
            const struct lifetime *o = placed[k];
            if (o->last < l->first || l->last < o->first)
                continue;
            if (o->offset >= at + l->bytes)
                break;
            if (o->offset + o->bytes > at)
                at = o->offset + o->bytes;
        }
        l->offset = at;
        int k = n_placed++;
        for (; k > 0 && placed[k - 1]->offset > at; k--)
            placed[k] = placed[k - 1];
        placed[k] = l;
        offset[l->id] = at;
        if (at + l->bytes > out->bytes)
            out->bytes = at + l->bytes;
    }
    for (int32_t t = 0; t < p->n_tensors; t++)
        if (lives[t].shares >= 0)
            offset[t] = offset[lives[t].shares];
    out->offset = offset;
    free(lives);
    free(order);
    free(placed);
    return ITERA_OK;
}

void itera_plan_destroy(struct itera_plan *plan)
{
    free(plan->offset);
    *plan = (struct itera_plan){0};
}
