#include "backend/gpu/chain.h"

#include <stdlib.h>

#include "core/environment.h"
#include "core/log.h"

/* In the order in which they take ops. */
static const struct itera_gpu_chain_kind *const kinds[] = {
    &itera_gpu_chain_selective, &itera_gpu_chain_itera, &itera_gpu_chain_experts,
    &itera_gpu_chain_sample, &itera_gpu_chain_product};
enum { KINDS = sizeof kinds / sizeof *kinds };

bool itera_gpu_reads(const struct itera_program *p, int32_t op, int32_t t)
{
    for (int k = 0; k < ITERA_MAX_IN; k++) {
        int32_t in = p->ops[op].in[k];
        if (in >= 0 && p->tensors[in].base == p->tensors[t].base)
            return true;
    }
    return false;
}

int32_t itera_gpu_maker(const struct itera_gpu_uses *u, int32_t t)
{
    const struct itera_program *p = u->program;
    if (t < 0)
        return ITERA_NONE;
    const int32_t base = p->tensors[t].base;
    const struct itera_tensor *b = &p->tensors[base];
    if (b->kind != ITERA_ACTIVATION || u->use[base].writers != 1)
        return ITERA_NONE;
    const struct itera_op *op = &p->ops[u->use[base].writer];
    const struct itera_shape *s = &p->tensors[t].shape;
    if (op->out[0] != base || itera_shape_rows(s) != itera_shape_rows(&b->shape) ||
        itera_shape_cols(s) != itera_shape_cols(&b->shape))
        return ITERA_NONE;
    for (int k = 1; k < ITERA_MAX_OUT; k++)
        if (op->out[k] >= 0)
            return ITERA_NONE;
    return u->use[base].writer;
}

int32_t itera_gpu_only_reader(const struct itera_gpu_uses *u, int32_t t)
{
    const struct itera_program *p = u->program;
    const int32_t base = p->tensors[t].base;
    if (p->tensors[base].kind != ITERA_ACTIVATION || u->use[base].readers != 1)
        return ITERA_NONE;
    for (int32_t i = 0; i < p->n_ops; i++)
        if (itera_gpu_reads(p, i, t))
            return i;
    return ITERA_NONE;
}

static void count_uses(const struct itera_program *p, struct itera_gpu_use *use)
{
    for (int32_t i = 0; i < p->n_ops; i++) {
        const struct itera_op *op = &p->ops[i];
        int32_t seen[ITERA_MAX_IN];
        int n = 0;
        for (int k = 0; k < ITERA_MAX_IN; k++) {
            if (op->in[k] < 0)
                continue;
            const int32_t base = p->tensors[op->in[k]].base;
            bool before = false;
            for (int j = 0; j < n; j++)
                before |= seen[j] == base;
            use[base].readers += !before;
            seen[n++] = base;
            if (itera_op_info(op->kind)->written_in >> k & 1) {
                use[base].writers++;
                use[base].writer = i;
            }
        }
        for (int k = 0; k < ITERA_MAX_OUT; k++)
            if (op->out[k] >= 0) {
                use[p->tensors[op->out[k]].base].writers++;
                use[p->tensors[op->out[k]].base].writer = i;
            }
    }
}

/* Whether two tensors may share memory. */
static bool same_memory(const struct itera_gpu_uses *u, int32_t a, int32_t b)
{
    const struct itera_tensor *t = u->program->tensors;
    a = t[a].base;
    b = t[b].base;
    if (a == b)
        return true;
    const struct itera_binding *x = u->bound[a], *y = u->bound[b];
    if (!x || !y || x->buffer != y->buffer)
        return false;
    const uint64_t x_bytes = itera_dtype_bytes(t[a].dtype, itera_shape_span(&t[a].shape));
    const uint64_t y_bytes = itera_dtype_bytes(t[b].dtype, itera_shape_span(&t[b].shape));
    return x->offset < y->offset + y_bytes && y->offset < x->offset + x_bytes;
}

static int role_of(const struct itera_gpu_chain *c, int32_t op)
{
    int role = 0;
    while (role < ITERA_ROLES && c->op[role] != op)
        role++;
    return role;
}

/* Operands of an op: inputs, then outputs; ITERA_NONE among them. */
enum { OPERANDS = ITERA_MAX_IN + ITERA_MAX_OUT };

static int32_t operand(const struct itera_op *op, int k)
{
    return k < ITERA_MAX_IN ? op->in[k] : op->out[k - ITERA_MAX_IN];
}

static bool written(const struct itera_op *op, int k)
{
    return k >= ITERA_MAX_IN || itera_op_info(op->kind)->written_in >> k & 1;
}

/* Whether op `b`, later than `a`, may trade places with it: neither writes what the other touches. What
 * a makes but the chain does not (inner) is touched by chains alone. */
static bool independent(const struct itera_gpu_uses *u, int32_t a, bool inner, int32_t b)
{
    const struct itera_op *x = &u->program->ops[a], *y = &u->program->ops[b];
    for (int i = 0; i < OPERANDS; i++)
        for (int k = 0; k < OPERANDS && operand(x, i) >= 0; k++)
            if (operand(y, k) >= 0 && (written(x, i) || written(y, k)) &&
                !(inner && i >= ITERA_MAX_IN) && same_memory(u, operand(x, i), operand(y, k)))
                return false;
    return true;
}

/* Whether what the chain reads first may be overwritten by what it makes, before all of its workgroups
 * have read it: operands that an op has in place are its own affair, unless others read them. */
static bool overwrites(const struct itera_gpu_uses *u, const struct itera_gpu_chain *c)
{
    const struct itera_op *ops = u->program->ops;
    for (int r = 0; r < ITERA_ROLES; r++)
        for (int w = 0; w < ITERA_ROLES; w++) {
            if (c->op[r] < 0 || c->op[w] < 0)
                continue;
            const struct itera_op *reader = &ops[c->op[r]], *writer = &ops[c->op[w]];
            if (r == w || c->op[r] > c->op[w])
                continue; /* by contract, or what passes along the chain */
            for (int i = 0; i < OPERANDS; i++)
                for (int k = 0; k < OPERANDS && operand(reader, i) >= 0; k++)
                    if (operand(writer, k) >= 0 && written(writer, k) &&
                        !(k >= ITERA_MAX_IN && c->inner[w]) &&
                        !(i >= ITERA_MAX_IN && c->inner[r]) &&
                        same_memory(u, operand(reader, i), operand(writer, k)))
                        return true;
        }
    return false;
}

/* Whether all of the chain may run in the place of its last op. */
static bool movable(const struct itera_gpu_uses *u, const struct itera_gpu_chain *c)
{
    int32_t first = c->last;
    for (int r = 0; r < ITERA_ROLES; r++)
        if (c->op[r] >= 0 && c->op[r] < first)
            first = c->op[r];
    for (int32_t i = first + 1; i < c->last; i++) {
        if (role_of(c, i) < ITERA_ROLES)
            continue;
        for (int r = 0; r < ITERA_ROLES; r++)
            if (c->op[r] >= 0 && c->op[r] < i && !independent(u, c->op[r], c->inner[r], i))
                return false;
    }
    return !overwrites(u, c);
}

static bool find(const struct itera_gpu_uses *u, const struct itera_gpu_chain_kind *kind,
                 int32_t anchor, struct itera_gpu_chain *c)
{
    *c = (struct itera_gpu_chain){.kind = kind, .anchor = anchor};
    for (int r = 0; r < ITERA_ROLES; r++)
        c->op[r] = ITERA_NONE;
    if (u->taken[anchor] || u->refused[anchor] || !kind->find(u, anchor, c))
        return false;
    for (int r = 0; r < ITERA_ROLES; r++) {
        if (c->op[r] >= 0 && u->taken[c->op[r]] && !c->shared[r])
            return false;
        if (c->op[r] > c->last)
            c->last = c->op[r];
    }
    return true;
}

/* Takes all chains that there are, but for what was refused. */
static void collect(const struct itera_gpu_uses *u, const struct itera_gpu_chain_kind **taken,
                    const bool *off, struct itera_gpu_chains *out)
{
    const struct itera_program *p = u->program;
    out->n = 0;
    for (int32_t i = 0; i < p->n_ops; i++)
        taken[i] = NULL;
    for (int k = 0; k < KINDS; k++)
        for (int32_t i = 0; i < p->n_ops && !off[k]; i++) {
            struct itera_gpu_chain c;
            if (!find(u, kinds[k], i, &c))
                continue;
            out->list[out->n++] = c; /* no two have one anchor */
            for (int r = 0; r < ITERA_ROLES; r++)
                if (c.op[r] >= 0)
                    taken[c.op[r]] = kinds[k];
        }
}

/* Refuses the chains that cannot be, and says whether there were any. */
static enum itera_status refuse_some(struct itera_gpu_lowering *l, const struct itera_gpu_uses *u,
                                     int forced, bool *refused,
                                     const struct itera_gpu_chains *chains, bool *any)
{
    *any = false;
    for (int32_t i = 0; i < chains->n; i++) {
        const struct itera_gpu_chain *c = &chains->list[i];
        enum itera_status status = ITERA_ERR_UNSUPPORTED;
        if (movable(u, c)) {
            const int32_t n = l->n;
            status = itera_gpu_lower_chain(l, c, forced);
            l->n = n;
        }
        if (status && status != ITERA_ERR_UNSUPPORTED)
            return status;
        refused[c->anchor] |= status != ITERA_OK;
        *any |= status != ITERA_OK;
    }
    return ITERA_OK;
}

/* What the plan must know. */
static void spread(const struct itera_program *p, struct itera_gpu_chains *out)
{
    for (int32_t i = 0; i < p->n_ops; i++)
        out->until[i] = i;
    for (int32_t i = 0; i < out->n; i++) {
        const struct itera_gpu_chain *c = &out->list[i];
        out->at[c->last] = c;
        for (int r = 0; r < ITERA_ROLES; r++) {
            if (c->op[r] < 0)
                continue;
            out->member[c->op[r]] = true;
            if (c->last > out->until[c->op[r]])
                out->until[c->op[r]] = c->last;
            for (int k = 0; k < ITERA_MAX_OUT && c->inner[r]; k++)
                if (p->ops[c->op[r]].out[k] >= 0)
                    out->unmade[p->ops[c->op[r]].out[k]] = true;
        }
    }
}

enum itera_status itera_gpu_find_chains(struct itera_gpu_lowering *l,
                                        const struct itera_binding *const *bound, int forced,
                                        bool apart, struct itera_gpu_chains *out)
{
    const struct itera_program *p = l->program;
    const size_t ops = (size_t)p->n_ops + 1, tensors = (size_t)p->n_tensors + 1;
    bool *refused = calloc(ops, sizeof *refused);
    const struct itera_gpu_chain_kind **taken = calloc(ops, sizeof *taken);
    struct itera_gpu_use *use = calloc(tensors, sizeof *use);
    *out = (struct itera_gpu_chains){.list = calloc(ops, sizeof *out->list),
                                     .at = calloc(ops, sizeof *out->at),
                                     .member = calloc(ops, sizeof *out->member),
                                     .until = calloc(ops, sizeof *out->until),
                                     .unmade = calloc(tensors, sizeof *out->unmade)};
    enum itera_status status = ITERA_OK;
    if (!refused || !taken || !use || !out->list || !out->at || !out->member || !out->until ||
        !out->unmade)
        status = itera_fail(ITERA_ERR_MEMORY, "no memory to compile a program");
    bool off[KINDS], again = true;
    for (int k = 0; k < KINDS; k++)
        off[k] = apart || itera_op_matches(itera_environment_disabled_ops(), kinds[k]->name);
    const struct itera_gpu_uses u = {p, bound, use, refused, taken};
    if (!status)
        count_uses(p, use);
    while (!status && again) {
        collect(&u, taken, off, out);
        status = refuse_some(l, &u, forced, refused, out, &again);
    }
    if (!status)
        spread(p, out);
    free(refused);
    free((void *)taken);
    free(use);
    return status;
}

void itera_gpu_chains_destroy(struct itera_gpu_chains *chains)
{
    free(chains->list);
    free((void *)chains->at);
    free(chains->member);
    free(chains->until);
    free(chains->unmade);
    *chains = (struct itera_gpu_chains){0};
}
