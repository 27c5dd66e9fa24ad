/* Parity cases of the mixed precision ops. None has a gradient. */
#include <stdio.h>

#include "check/case.h"
#include "core/number.h"

itera_case_fn itera_case_cast, itera_case_unscale, itera_case_loss_scale;

enum { CASES = 12 };

static int32_t matrix(struct itera_case *c, enum itera_fill fill, double spread)
{
    int64_t dim[2] = {itera_case_size(c, 65), itera_case_size(c, 257)};
    int64_t padding = c->index % 3 == 1 ? itera_case_pick(c, 1, 9) : 0;
    snprintf(c->label, sizeof c->label, "rows=%d cols=%d%s", (int)dim[0], (int)dim[1],
             padding ? " strided" : "");
    int32_t x = itera_case_strided(c, "x", 2, dim, padding, fill, 0.0, spread);
    itera_case_constant(c, x);
    return x;
}

/* To f16 and back: the first step rounds, the second, under test, must return just that. */
bool itera_case_cast(struct itera_case *c)
{
    if (c->index >= CASES)
        return false;
    /* subnormals of f16, and what overflows it, are among the extreme values */
    bool extreme = c->index % 2;
    int32_t x = matrix(c, extreme ? ITERA_FILL_EXTREME : ITERA_FILL_NORMAL, extreme ? 1e5 : 1.0);
    struct itera_attr attr = {.dtype = ITERA_F32};
    int32_t half = itera_case_half(c, x), out = ITERA_NEW;
    itera_record(c->program, ITERA_OP_cast, &attr, &half, &out);
    return true;
}

bool itera_case_unscale(struct itera_case *c)
{
    static const int64_t two = 2;
    if (c->index >= CASES)
        return false;
    bool extreme = c->index % 4 == 3;
    int32_t in[2] = {matrix(c, extreme ? ITERA_FILL_EXTREME : ITERA_FILL_NORMAL, 1e4)};
    in[1] = itera_case_input(c, "scale", 1, &two, ITERA_FILL_UNIFORM, 1.0, 65536.0);
    itera_case_constant(c, in[1]);
    int32_t out = ITERA_NEW;
    itera_record(c->program, ITERA_OP_unscale, NULL, in, &out);
    return true;
}

bool itera_case_loss_scale(struct itera_case *c)
{
    static const int64_t two = 2;
    static const double scales[] = {1.0, 1.5, 4096.0, 0x1p23, 0x1p24, 2.0};
    if (c->index >= CASES)
        return false;
    struct itera_attr attr = {.count = c->index % 3 + 1};
    double scale = scales[c->index % 6], finite = c->index % 4 ? 1.0 : 0.0;
    itera_format(c->label, sizeof c->label, "scale=%g count=%d%s", scale, attr.count,
                 finite > 0 ? "" : " overflow");
    int32_t in[2] = {itera_case_input(c, "scale", 1, &two, ITERA_FILL_NORMAL, scale, 0.0),
                     itera_case_input(c, "norm", 1, &two, ITERA_FILL_NORMAL, finite, 0.0)};
    itera_case_constant(c, in[0]);
    itera_case_constant(c, in[1]);
    itera_record(c->program, ITERA_OP_loss_scale, &attr, in, NULL);
    return true;
}
