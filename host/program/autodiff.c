#include "program/autodiff.h"

#include <stdlib.h>
#include <string.h>

#include "core/log.h"

/* What is known of the gradient of one tensor during the reverse walk. */
struct gradient {
    int32_t tensor;  /* where it is; ITERA_NONE until something contributes */
    bool written;    /* the whole of `tensor` holds a value (or it is borrowed) */
    bool assembled;  /* contributions to views of this tensor are in `tensor` */
    bool borrowed;   /* `tensor` is somebody else's: it must not be written to */
    bool zero_first; /* bases with views: contributions do not cover it, so zero it first */
};

struct itera_autodiff {
    struct itera_program *p;
    struct gradient *grads; /* per tensor id that existed before the walk */
    int32_t n;
    bool *needed; /* per tensor id: a wrt tensor influences it */
};

struct itera_program *itera_ad_program(struct itera_autodiff *ad)
{
    return ad->p;
}

/* Fills a tensor with zeros. */
static void record_zero(struct itera_program *p, int32_t tensor)
{
    int32_t out[1] = {tensor};
    itera_record(p, ITERA_OP_fill, NULL, NULL, out);
}

static void record_add(struct itera_program *p, int32_t a, int32_t b, int32_t out)
{
    int32_t in[2] = {a, b};
    itera_record(p, ITERA_OP_add, NULL, in, &out);
}

static void record_copy(struct itera_program *p, int32_t from, int32_t to)
{
    itera_record(p, ITERA_OP_copy, NULL, &from, &to);
}

/* The storage for the gradient of `tensor`, made when first asked for. A view's is the same view of
 * its base's, so that the gradients of slices assemble the gradient of the whole. */
static int32_t storage(struct itera_autodiff *ad, int32_t tensor)
{
    struct itera_program *p = ad->p;
    struct gradient *g = &ad->grads[tensor];
    if (g->tensor != ITERA_NONE)
        return g->tensor;
    struct itera_tensor t = p->tensors[tensor];
    if (t.base == tensor) {
        g->tensor = itera_activation(p, ITERA_F32, t.shape.rank, t.shape.dim);
        if (g->zero_first) {
            record_zero(p, g->tensor);
            g->written = true;
        }
        return g->tensor;
    }
    struct gradient *whole = &ad->grads[t.base];
    if (whole->borrowed) {
        /* A slice's contribution is about to change what is not ours: take a copy. */
        int32_t from = whole->tensor;
        whole->tensor = ITERA_NONE;
        whole->borrowed = false;
        whole->zero_first = false;
        storage(ad, t.base);
        record_copy(p, from, whole->tensor);
        whole->written = true;
    }
    int32_t base = storage(ad, t.base);
    if (p->status)
        return ITERA_NONE;
    struct itera_tensor view = p->tensors[base];
    view.shape = t.shape;
    view.offset += t.offset;
    /* Recorded as a view by hand: the window is the one that the forward view has. */
    int32_t id = itera_view_dims(p, base, p->tensors[base].shape.rank, p->tensors[base].shape.dim);
    if (p->status)
        return ITERA_NONE;
    p->tensors[id].shape = view.shape;
    p->tensors[id].offset = view.offset;
    g->tensor = id;
    g->written = ad->grads[t.base].zero_first || ad->grads[t.base].written;
    return id;
}

int32_t itera_ad_of(struct itera_autodiff *ad, int32_t tensor)
{
    if (tensor < 0 || tensor >= ad->n)
        return ITERA_NONE;
    const struct gradient *g = &ad->grads[tensor];
    return g->written || g->assembled ? g->tensor : ITERA_NONE;
}

bool itera_ad_wants(struct itera_autodiff *ad, int32_t tensor)
{
    return tensor >= 0 && tensor < ad->n && ad->needed[tensor];
}

/* A borrowed gradient becomes our own sum with the contribution. */
static void add_to_borrowed(struct itera_autodiff *ad, int32_t tensor, int32_t contribution)
{
    struct gradient *g = &ad->grads[tensor];
    int32_t earlier = g->tensor;
    struct itera_tensor t = ad->p->tensors[tensor];
    g->tensor = itera_activation(ad->p, ITERA_F32, t.shape.rank, t.shape.dim);
    g->borrowed = false;
    record_add(ad->p, earlier, contribution, g->tensor);
}

int32_t itera_ad_begin(struct itera_autodiff *ad, int32_t tensor)
{
    if (!itera_ad_wants(ad, tensor) || ad->p->status)
        return ITERA_NONE;
    struct gradient *g = &ad->grads[tensor];
    if (!g->written) {
        int32_t s = storage(ad, tensor);
        if (!g->written)
            return s;
    }
    const struct itera_tensor *t = &ad->p->tensors[tensor];
    return itera_activation(ad->p, ITERA_F32, t->shape.rank, t->shape.dim);
}

void itera_ad_end(struct itera_autodiff *ad, int32_t tensor, int32_t contribution)
{
    if (contribution == ITERA_NONE || ad->p->status)
        return;
    struct gradient *g = &ad->grads[tensor];
    if (contribution == g->tensor)
        g->written = true;
    else if (g->borrowed)
        add_to_borrowed(ad, tensor, contribution);
    else
        record_add(ad->p, g->tensor, contribution, g->tensor);
}

int32_t itera_ad_target(struct itera_autodiff *ad, int32_t tensor, uint8_t *accumulate)
{
    *accumulate = 0;
    if (!itera_ad_wants(ad, tensor) || ad->p->status)
        return ITERA_NONE;
    struct gradient *g = &ad->grads[tensor];
    if (g->borrowed) {
        int32_t from = g->tensor;
        struct itera_tensor t = ad->p->tensors[tensor];
        g->tensor = itera_activation(ad->p, ITERA_F32, t.shape.rank, t.shape.dim);
        g->borrowed = false;
        record_copy(ad->p, from, g->tensor);
    }
    int32_t s = storage(ad, tensor);
    *accumulate = g->written;
    g->written = true;
    return s;
}

void itera_ad_pass(struct itera_autodiff *ad, int32_t tensor, int32_t contribution)
{
    if (!itera_ad_wants(ad, tensor) || contribution == ITERA_NONE || ad->p->status)
        return;
    struct gradient *g = &ad->grads[tensor];
    bool whole = ad->p->tensors[tensor].base == tensor;
    if (!g->written && whole && g->tensor == ITERA_NONE && !g->zero_first) {
        *g = (struct gradient){.tensor = contribution, .written = true, .borrowed = true};
        return;
    }
    if (g->borrowed) {
        add_to_borrowed(ad, tensor, contribution);
        return;
    }
    int32_t s = storage(ad, tensor);
    if (g->written)
        record_add(ad->p, s, contribution, s);
    else
        record_copy(ad->p, contribution, s);
    g->written = true;
}

void itera_ad_fail(struct itera_autodiff *ad, const struct itera_op *op, const char *why)
{
    if (!ad->p->status)
        ad->p->status = itera_fail(ITERA_ERR_UNSUPPORTED, "%s cannot be differentiated: %s",
                                   itera_op_info(op->kind)->name, why);
}

void itera_ad_record(struct itera_autodiff *ad, enum itera_op_kind bwd,
                     const struct itera_attr *attr, const int32_t *in, const int32_t *of)
{
    const struct itera_op_info *info = itera_op_info(bwd);
    int32_t out[ITERA_MAX_OUT];
    for (int i = 0; i < info->n_out; i++) {
        bool optional = info->optional_out >> i & 1;
        if (itera_ad_wants(ad, of[i]))
            out[i] = itera_ad_begin(ad, of[i]);
        else
            out[i] = optional ? ITERA_NONE : ITERA_NEW;
    }
    int32_t targets[ITERA_MAX_OUT];
    memcpy(targets, out, sizeof targets);
    itera_record(ad->p, bwd, attr, in, out);
    for (int i = 0; i < info->n_out; i++)
        if (itera_ad_wants(ad, of[i]) && !ad->p->status)
            itera_ad_end(ad, of[i], targets[i]);
}

/* Marks what depends on a wrt tensor. Views share the mark with their base, both ways. */
static void mark_needed(struct itera_autodiff *ad, int n, const int32_t *wrt)
{
    const struct itera_program *p = ad->p;
    for (int i = 0; i < n; i++)
        ad->needed[p->tensors[wrt[i]].base] = true;
    for (int32_t i = 0; i < p->n_ops; i++) {
        const struct itera_op *op = &p->ops[i];
        const struct itera_op_info *info = itera_op_info(op->kind);
        bool any = false;
        for (int k = 0; k < info->n_in; k++)
            any |= op->in[k] >= 0 && ad->needed[p->tensors[op->in[k]].base];
        for (int k = 0; k < info->n_out; k++)
            if (op->out[k] >= 0 && any && p->tensors[op->out[k]].dtype != ITERA_I32)
                ad->needed[p->tensors[op->out[k]].base] = true;
    }
    for (int32_t t = 0; t < ad->n; t++)
        ad->needed[t] = ad->needed[p->tensors[t].base] && p->tensors[t].dtype == ITERA_F32;
}

/* Whether two views of one base are windows of its rows with no column in common. */
static bool apart(const struct itera_program *p, const struct itera_tensor *a,
                  const struct itera_tensor *b)
{
    const int64_t ld = p->tensors[a->base].shape.ld;
    if (a->shape.ld != ld || b->shape.ld != ld || !ld)
        return false;
    const int64_t from_a = a->offset % ld, from_b = b->offset % ld;
    return from_a + itera_shape_cols(&a->shape) <= from_b ||
           from_b + itera_shape_cols(&b->shape) <= from_a;
}

/* A base that is used through views gets its gradient in pieces. If the pieces used cover it once
 * and it is not used as a whole as well, they simply write; otherwise it is zeroed first and all
 * contributions add. */
static enum itera_status mark_partial(struct itera_autodiff *ad, int32_t loss)
{
    const struct itera_program *p = ad->p;
    bool *used = calloc((size_t)ad->n + 1, 1);
    bool *reaches = calloc((size_t)ad->n + 1, 1); /* per base: the loss depends on it */
    int64_t *covered = calloc((size_t)ad->n + 1, sizeof *covered);
    if (!used || !reaches || !covered) {
        free(used);
        free(reaches);
        free(covered);
        return itera_fail(ITERA_ERR_MEMORY, "no memory to differentiate a program");
    }
    reaches[p->tensors[loss].base] = true;
    for (int32_t i = p->n_ops - 1; i >= 0; i--) {
        const struct itera_op *op = &p->ops[i];
        const struct itera_op_info *info = itera_op_info(op->kind);
        bool any = false;
        for (int k = 0; k < info->n_out; k++)
            any |= op->out[k] >= 0 && reaches[p->tensors[op->out[k]].base];
        for (int k = 0; any && info->def->grad && k < info->n_in; k++)
            if (op->in[k] >= 0) {
                used[op->in[k]] = true;
                reaches[p->tensors[op->in[k]].base] = true;
            }
    }
    for (int32_t t = 0; t < ad->n; t++) {
        int32_t base = p->tensors[t].base;
        if (!used[t] || base == t)
            continue;
        covered[base] += itera_shape_elements(&p->tensors[t].shape);
        for (int32_t s = base + 1; s < t; s++)
            if (used[s] && p->tensors[s].base == base && !apart(p, &p->tensors[s], &p->tensors[t]))
                ad->grads[base].zero_first = true;
    }
    for (int32_t t = 0; t < ad->n; t++)
        if (p->tensors[t].base == t && covered[t])
            ad->grads[t].zero_first |=
                used[t] || covered[t] != itera_shape_elements(&p->tensors[t].shape);
    free(used);
    free(reaches);
    free(covered);
    return ITERA_OK;
}

/* A tensor that later ops used through views has its gradient once the views have contributed; by
 * the time its producer is reached, all of them have. */
static void settle_views(struct itera_autodiff *ad)
{
    const struct itera_program *p = ad->p;
    for (int32_t t = 0; t < ad->n; t++) {
        int32_t base = p->tensors[t].base;
        if (base != t && ad->grads[t].written)
            ad->grads[base].assembled = true;
    }
}

static bool output_reached(struct itera_autodiff *ad, const struct itera_op *op, int n_out)
{
    bool any = false;
    for (int k = 0; k < n_out; k++)
        any |= itera_ad_of(ad, op->out[k]) != ITERA_NONE;
    return any;
}

enum itera_status itera_differentiate(struct itera_program *p, int32_t loss, int32_t seed, int n,
                                      const int32_t *wrt, int32_t *grads)
{
    if (p->status)
        return p->status;
    struct itera_autodiff ad = {.p = p, .n = p->n_tensors};
    ad.grads = malloc((size_t)ad.n * sizeof *ad.grads);
    ad.needed = calloc((size_t)ad.n, 1);
    if (!ad.grads || !ad.needed) {
        p->status = itera_fail(ITERA_ERR_MEMORY, "no memory to differentiate a program");
        goto done;
    }
    for (int32_t i = 0; i < ad.n; i++)
        ad.grads[i] = (struct gradient){.tensor = ITERA_NONE};
    mark_needed(&ad, n, wrt);
    p->status = mark_partial(&ad, loss);
    if (p->status)
        goto done;
    for (int i = 0; i < n; i++)
        if (grads[i] >= 0)
            ad.grads[wrt[i]].tensor = grads[i];

    enum itera_part part = p->part;
    if (seed == ITERA_NONE) {
        const struct itera_shape *s = &p->tensors[loss].shape;
        seed = itera_activation(p, ITERA_F32, s->rank, s->dim);
        struct itera_attr one = {.scale = 1.0f};
        p->part = ITERA_PART_LOSS;
        itera_record(p, ITERA_OP_fill, &one, NULL, &seed);
    }
    itera_ad_pass(&ad, loss, seed);
    for (int32_t i = p->n_ops - 1; i >= 0 && !p->status; i--) {
        struct itera_op op = p->ops[i]; /* a copy: recording moves the list */
        const struct itera_op_info *info = itera_op_info(op.kind);
        bool touched = false;
        for (int k = 0; k < info->n_out; k++)
            touched |= op.out[k] >= 0 && op.out[k] < ad.n;
        bool wanted = false;
        for (int k = 0; k < info->n_in; k++)
            wanted |= itera_ad_wants(&ad, op.in[k]);
        if (!touched || !wanted)
            continue;
        settle_views(&ad);
        if (!output_reached(&ad, &op, info->n_out))
            continue;
        if (!info->def->grad) {
            itera_ad_fail(&ad, &op, "it has no gradient rule");
            break;
        }
        p->part = op.part;
        info->def->grad(&ad, &op);
    }
    settle_views(&ad);
    for (int i = 0; i < n && !p->status; i++) {
        struct gradient *g = &ad.grads[wrt[i]];
        int32_t target = grads[i];
        if (!g->written && !g->assembled) {
            if (target < 0)
                target = itera_activation(p, ITERA_F32, p->tensors[wrt[i]].shape.rank,
                                          p->tensors[wrt[i]].shape.dim);
            record_zero(p, target);
        } else if (target >= 0 && g->tensor != target) {
            record_copy(p, g->tensor, target);
        } else {
            target = g->tensor;
        }
        grads[i] = target;
    }
    p->part = part;
done:
    free(ad.grads);
    free(ad.needed);
    return p->status;
}
