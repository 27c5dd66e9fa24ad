/* Which ops a device has kernels for: asked with the programs of the parity cases. */
#include <stdio.h>
#include <string.h>

#include "backend/backend.h"
#include "check/programs.h"
#include "core/log.h"
#include "itera/check.h"

/* What was found of each op on one device. */
struct survey {
    struct itera_device *device;
    bool seen[ITERA_OP_COUNT], supported[ITERA_OP_COUNT];
    char reason[ITERA_OP_COUNT][160];
};

/* Asks about every op of a program; one refusal makes an op unsupported. */
static enum itera_status ask(void *user, const struct itera_program *p)
{
    struct survey *s = user;
    struct itera_reason why;
    for (int32_t i = 0; i < p->n_ops; i++) {
        enum itera_op_kind kind = p->ops[i].kind;
        if (s->seen[kind] && !s->supported[kind])
            continue;
        enum itera_status status = itera_supports(s->device, p, &p->ops[i], &why);
        if (status && status != ITERA_ERR_UNSUPPORTED)
            snprintf(why.text, sizeof why.text, "%s", itera_last_error());
        s->supported[kind] = !status;
        s->seen[kind] = true;
        if (status)
            snprintf(s->reason[kind], sizeof s->reason[kind], "%.159s", why.text);
    }
    return ITERA_OK;
}

enum itera_status itera_check_support(struct itera_device *device, itera_support_fn *fn, void *user)
{
    enum { CASES = 6 };
    static struct survey none;
    struct survey s = none;
    s.device = device;
    enum itera_status status = ITERA_OK;
    for (int kind = 0; kind < ITERA_OP_COUNT && !status; kind++)
        status = itera_check_programs((enum itera_op_kind)kind, CASES, ask, &s);
    for (int kind = 0; kind < ITERA_OP_COUNT && !status; kind++) {
        const struct itera_op_info *info = itera_op_info((enum itera_op_kind)kind);
        const char *why = s.seen[kind] ? s.reason[kind] : "no parity case reaches it";
        if (fn(user, info->name, info->def->variants == ITERA_SCAN_VARIANTS, s.supported[kind],
               why))
            status = itera_fail(ITERA_ERR_CANCELLED, "the survey was stopped");
    }
    return status;
}
