/* Parity cases of the losses. */
#include <stdio.h>

#include "check/case.h"
#include "core/number.h"

itera_case_fn itera_case_cross_entropy, itera_case_kl_loss;

bool itera_case_cross_entropy(struct itera_case *c)
{
    /* rows, classes: small vocabularies, blocks of the fast kernel and one off, one class */
    static const int16_t named[][2] = {{1, 184},  {9, 2000}, {65, 64}, {3, 1024},
                                       {5, 1025}, {4, 3071}, {6, 1},   {7, 2}};
    enum { NAMED = sizeof named / sizeof *named, CASES = NAMED + 10 };
    if (c->index >= CASES)
        return false;
    int64_t dim[3] = {1, itera_case_size(c, 65), itera_case_size(c, 513)};
    if (c->index < NAMED) {
        dim[1] = named[c->index][0];
        dim[2] = named[c->index][1];
    }
    /* In every third case rows have two indices, and targets are a view of a wider tensor. */
    bool batched = c->index % 3 == 2, strided = c->index % 4 >= 2;
    bool extreme = c->index % 5 == 4, ignored = c->index == 10;
    if (batched)
        dim[0] = itera_case_pick(c, 1, 3);
    int64_t padding = strided ? itera_case_pick(c, 1, 9) : 0;
    const int64_t *first = batched ? dim : dim + 1;
    int32_t in[2], out[] = {ITERA_NEW, ITERA_NEW};
    in[0] = itera_case_strided(c, "logits", batched ? 3 : 2, first, padding,
                               extreme ? ITERA_FILL_EXTREME : ITERA_FILL_NORMAL, 0.0,
                               extreme ? 20.0 : 3.0);
    in[1] =
        itera_case_strided(c, "targets", batched ? 2 : 1, first, batched ? padding : 0,
                           ignored        ? ITERA_FILL_STEP
                           : c->index % 2 ? ITERA_FILL_IGNORE
                                          : ITERA_FILL_INDEX,
                           ignored ? -1.0 : 0.0, (double)dim[2] + (c->index % 6 == 5 ? 1.0 : 0.0));
    snprintf(c->label, sizeof c->label, "rows=%d classes=%d%s%s%s", (int)(dim[0] * dim[1]),
             (int)dim[2], strided ? " strided" : "", extreme ? " extreme" : "",
             ignored        ? " all ignored"
             : c->index % 2 ? " some ignored"
                            : "");
    itera_record(c->program, ITERA_OP_cross_entropy, NULL, in, out);
    return true;
}

bool itera_case_kl_loss(struct itera_case *c)
{
    static const int16_t named[][2] = {{1, 184}, {9, 2000}, {33, 64}, {3, 1025}, {6, 2}};
    static const float temperature[] = {1.0f, 2.0f, 0.5f};
    enum { NAMED = sizeof named / sizeof *named, CASES = NAMED + 7 };
    if (c->index >= CASES)
        return false;
    int64_t dim[2] = {itera_case_size(c, 65), 1 + itera_case_size(c, 513)};
    if (c->index < NAMED) {
        dim[0] = named[c->index][0];
        dim[1] = named[c->index][1];
    }
    struct itera_attr attr = {.scale = temperature[c->index % 3]};
    int64_t padding = c->index % 2 ? itera_case_pick(c, 1, 9) : 0;
    /* Logits of a trained model: nearly certain rows lose both sides of q - p to rounding. */
    int32_t in[2], out[] = {ITERA_NEW};
    in[0] = itera_case_strided(c, "student", 2, dim, padding, ITERA_FILL_NORMAL, 0.0, 2.0);
    in[1] = itera_case_strided(c, "teacher", 2, dim, padding ? padding + 1 : 0, ITERA_FILL_NORMAL,
                               1.0, 2.0);
    itera_case_constant(c, in[1]);
    itera_format(c->label, sizeof c->label, "rows=%d classes=%d temperature=%g%s", (int)dim[0],
                 (int)dim[1], (double)attr.scale, padding ? " strided" : "");
    itera_record(c->program, ITERA_OP_kl_loss, &attr, in, out);
    return true;
}
