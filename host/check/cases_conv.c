/* Parity cases of the causal convolution: what models use, then odd sizes and every width. */
#include <stdio.h>

#include "check/case.h"

itera_case_fn itera_case_causal_conv1d;

bool itera_case_causal_conv1d(struct itera_case *c)
{
    static const struct {
        int16_t batch, time, channels, taps;
    } named[] = {
        {2, 65, 128, 4}, {1, 1, 128, 4}, {1, 128, 67, 4}, {3, 2, 33, 4},  {1, 1, 17, 4},
        {1, 63, 1, 4},   {1, 3, 16, 4},  {2, 4, 15, 4},   {1, 20, 31, 1}, {1, 20, 31, 2},
        {1, 20, 31, 3},  {2, 9, 16, 5},  {1, 1, 16, 3},   {1, 2, 40, 8},  {1, 70, 8, 16},
        {1, 15, 9, 16},  {1, 16, 9, 16}, {1, 1, 1, 1},
    };
    enum { NAMED = sizeof named / sizeof *named };
    struct itera_attr attr = {.act = c->index % 2 ? ITERA_ACT_NONE : ITERA_ACT_SILU};
    const bool bias = c->index % 3 != 0, strided = c->index % 4 == 2, flat = c->index % 5 == 3;
    const bool extreme = c->index % 11 == 10;
    bool state = c->index % 4 == 1;
    int64_t batch, time, channels, taps;

    if (c->index >= NAMED + 24)
        return false;
    if (c->index < NAMED) {
        batch = named[c->index].batch;
        time = named[c->index].time;
        channels = named[c->index].channels;
        taps = named[c->index].taps;
    } else {
        batch = itera_case_pick(c, 1, 3);
        time = itera_case_size(c, 140);
        channels = itera_case_size(c, 70);
        taps = c->index % 2 ? 4 : itera_case_pick(c, 1, 16);
    }
    state = state && taps > 1; /* there is nothing to keep for one tap */
    int64_t dim[3] = {batch, time, channels};
    enum itera_fill fill = extreme ? ITERA_FILL_EXTREME : ITERA_FILL_NORMAL;
    double spread = extreme ? 1e4 : 1.0;
    int32_t x =
        strided ? itera_case_strided(c, "x", 3, dim, itera_case_pick(c, 1, 9), fill, 0.0, spread)
                : itera_case_input(c, "x", 3, dim, fill, 0.0, spread);
    int64_t deep[3] = {channels, 1, taps}, wide[2] = {channels, taps};
    int32_t weight = flat ? itera_case_strided(c, "weight", 2, wide, 2, ITERA_FILL_NORMAL, 0.0, 0.5)
                          : itera_case_input(c, "weight", 3, deep, ITERA_FILL_NORMAL, 0.0, 0.5);
    int32_t in[4] = {x, weight, ITERA_NONE, ITERA_NONE}, out = ITERA_NEW;
    if (bias)
        in[2] = itera_case_input(c, "bias", 1, &channels, ITERA_FILL_NORMAL, 0.0, 0.5);
    if (state) {
        in[3] = itera_case_input(c, "state", 3, (int64_t[]){batch, channels, taps - 1},
                                 ITERA_FILL_NORMAL, 0.0, 1.0);
        for (int i = 0; i < c->n_inputs; i++) /* a carried state has no gradient */
            itera_case_constant(c, c->input[i].tensor);
    }
    snprintf(c->label, sizeof c->label, "B=%d T=%d C=%d K=%d%s%s%s%s%s", (int)batch, (int)time,
             (int)channels, (int)taps, attr.act ? " silu" : "", bias ? " bias" : "",
             state ? " state" : "", strided ? " strided" : "", extreme ? " extreme" : "");
    itera_record(c->program, ITERA_OP_causal_conv1d, &attr, in, &out);
    return true;
}
