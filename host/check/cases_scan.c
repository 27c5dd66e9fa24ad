/* Parity cases of the scans. The first ones are shapes that models use; the others draw awkward
 * sizes, and run through the optional operands and strides as the index rises. B and C are given a
 * mean, so that sums over states do not nearly cancel and f32 can be held to the tolerance. */
#include <stdio.h>

#include "check/case.h"

itera_case_fn itera_case_linear_scan;
itera_case_fn itera_case_itera_scan;
itera_case_fn itera_case_selective_scan;
itera_case_fn itera_case_ssd_scan;

struct sizes {
    int64_t batch, time, channels;
};

/* The last cases have more chunks than a workgroup goes through at once: shared memory is used again. */
enum { MANY_CHUNKS = 2 };

/* A (B, T, columns) input, a column view of a wider tensor when `strided`. */
static int32_t sequence(struct itera_case *c, const char *name, const struct sizes *s,
                        int64_t columns, bool strided, enum itera_fill fill, double a, double b)
{
    int64_t dim[3] = {s->batch, s->time, columns};

    return strided ? itera_case_strided(c, name, 3, dim, itera_case_pick(c, 1, 9), fill, a, b)
                   : itera_case_input(c, name, 3, dim, fill, a, b);
}

/* A scan with a carried state has no gradient. */
static void no_gradient(struct itera_case *c)
{
    for (int i = 0; i < c->n_inputs; i++)
        itera_case_constant(c, c->input[i].tensor);
}

bool itera_case_linear_scan(struct itera_case *c)
{
    static const struct sizes named[] = {{2, 64, 64}, {1, 1, 128}, {1, 128, 8}, {3, 65, 17},
                                         {1, 1, 1},   {1, 600, 3}, {2, 7, 65},  {1, 63, 16}};
    enum { NAMED = sizeof named / sizeof *named };
    const bool state = c->index % 3 == 1, strided = c->index % 4 == 3;
    const bool extreme = c->index % 7 == 6, in_place = c->index % 5 == 2;
    struct sizes s;

    if (c->index >= NAMED + 16 + MANY_CHUNKS)
        return false;
    const bool chunks = c->index >= NAMED + 16;
    if (c->index < NAMED)
        s = named[c->index];
    else if (chunks)
        s = (struct sizes){2, 200, 33};
    else
        s = (struct sizes){itera_case_pick(c, 1, 3), itera_case_size(c, 130),
                           itera_case_size(c, 70)};
    /* Decays of either sign, below 1 in magnitude: the state stays bounded. */
    int32_t a = sequence(c, "a", &s, s.channels, strided, ITERA_FILL_UNIFORM, -0.3, 0.99);
    int32_t b =
        sequence(c, "b", &s, s.channels, strided, extreme ? ITERA_FILL_EXTREME : ITERA_FILL_NORMAL,
                 0.0, extreme ? 1e6 : 1.0);
    int32_t in[3] = {a, b, ITERA_NONE}, out = in_place ? b : ITERA_NEW;
    struct itera_attr attr = {.chunk = c->index % 2 ? 0 : (int32_t)itera_case_pick(c, 1, 70)};
    if (chunks)
        attr.chunk = 3;
    if (state)
        in[2] = itera_case_input(c, "state", 2, (int64_t[]){s.batch, s.channels}, ITERA_FILL_NORMAL,
                                 0.0, 1.0);
    if (state || in_place)
        no_gradient(c);
    snprintf(c->label, sizeof c->label, "B=%d T=%d C=%d chunk=%d%s%s%s%s", (int)s.batch,
             (int)s.time, (int)s.channels, attr.chunk, state ? " state" : "",
             in_place ? " in place" : "", strided ? " strided" : "", extreme ? " extreme" : "");
    itera_record(c->program, ITERA_OP_linear_scan, &attr, in, &out);
    return true;
}

bool itera_case_itera_scan(struct itera_case *c)
{
    /* The family's presets (N = 8, 16, 32), decoding, and odd ones. */
    static const struct sizes named[] = {{8, 128, 8}, {1, 1, 8},  {1, 128, 16}, {1, 64, 32},
                                         {2, 65, 17}, {1, 1, 1},  {1, 700, 8},  {3, 7, 33},
                                         {1, 5, 64},  {2, 31, 9}, {1, 1, 16},   {1, 2, 300}};
    enum { NAMED = sizeof named / sizeof *named };
    const bool state = c->index % 3 == 1, strided = c->index % 4 == 3;
    const bool fast = c->index % 7 == 6, in_place = c->index % 5 == 2;
    struct sizes s;

    if (c->index >= NAMED + 16 + MANY_CHUNKS)
        return false;
    const bool chunks = c->index >= NAMED + 16;
    if (c->index < NAMED)
        s = named[c->index];
    else if (chunks)
        s = (struct sizes){2, 200, 33};
    else
        s = (struct sizes){itera_case_pick(c, 1, 3), itera_case_size(c, 130),
                           itera_case_size(c, 70)};
    int32_t d = sequence(c, "d", &s, 1, strided, ITERA_FILL_UNIFORM, 0.001, fast ? 30.0 : 0.8);
    int32_t A =
        itera_case_input(c, "A", 1, &s.channels, ITERA_FILL_UNIFORM, fast ? -40.0 : -3.0, -0.01);
    int32_t u = sequence(c, "u", &s, s.channels, strided, ITERA_FILL_NORMAL, 0.3, 1.0);
    int32_t in[4] = {d, A, u, ITERA_NONE}, out = in_place ? u : ITERA_NEW;
    struct itera_attr attr = {.chunk = c->index % 2 ? 0 : (int32_t)itera_case_pick(c, 1, 70)};
    if (chunks)
        attr.chunk = 3;
    if (state)
        in[3] = itera_case_input(c, "state", 2, (int64_t[]){s.batch, s.channels}, ITERA_FILL_NORMAL,
                                 0.0, 1.0);
    if (state || in_place)
        no_gradient(c);
    snprintf(c->label, sizeof c->label, "B=%d T=%d N=%d chunk=%d%s%s%s%s", (int)s.batch,
             (int)s.time, (int)s.channels, attr.chunk, state ? " state" : "",
             in_place ? " in place" : "", strided ? " strided" : "", fast ? " fast decay" : "");
    itera_record(c->program, ITERA_OP_itera_scan, &attr, in, &out);
    return true;
}

bool itera_case_selective_scan(struct itera_case *c)
{
    static const struct {
        struct sizes s;
        int16_t states, chunk;
    } named[] = {
        {{1, 64, 48}, 16, 0},  {{1, 1, 96}, 16, 0},   {{2, 33, 32}, 16, 16},  {{1, 3, 40}, 16, 0},
        {{1, 70, 17}, 8, 64},  {{1, 1, 33}, 7, 0},    {{1, 9, 5}, 256, 4},    {{1, 1, 7}, 256, 0},
        {{1, 130, 16}, 1, 50}, {{3, 5, 15}, 17, 2},   {{1, 65, 9}, 5, 1},     {{1, 2, 31}, 64, 0},
        {{2, 66, 20}, 3, 64},  {{1, 200, 4}, 4, 64},  {{1, 1, 1}, 1, 0},      {{1, 4, 50}, 16, 0},
        {{1, 300, 3}, 20, 0},  {{2, 200, 9}, 6, 100}, {{1, 170, 5}, 40, 150},
    };
    enum { NAMED = sizeof named / sizeof *named };
    /* Every combination of the four optional operands appears as the index rises. */
    const bool skip = c->index % 2 == 0, gate = c->index / 2 % 2 == 0;
    const bool state = c->index % 3 == 1, strided = c->index % 5 >= 3;
    const bool boundaries = !state || c->index % 4 == 0, fast = c->index % 9 == 8;
    struct sizes s;
    int64_t n;
    struct itera_attr attr = {0};

    if (c->index >= NAMED + 24)
        return false;
    if (c->index < NAMED) {
        s = named[c->index].s;
        n = named[c->index].states;
        attr.chunk = named[c->index].chunk;
    } else {
        s = (struct sizes){itera_case_pick(c, 1, 2), itera_case_size(c, 70),
                           itera_case_size(c, 40)};
        n = itera_case_size(c, 33);
        attr.chunk = (int32_t)itera_case_pick(c, 0, 40);
    }
    int32_t x = sequence(c, "x", &s, s.channels, strided, ITERA_FILL_NORMAL, 0.0, 1.0);
    int32_t dt =
        sequence(c, "dt", &s, s.channels, strided, ITERA_FILL_UNIFORM, 0.001, fast ? 20.0 : 0.7);
    int64_t a_dim[2] = {s.channels, n};
    int32_t A = strided ? itera_case_strided(c, "A", 2, a_dim, 3, ITERA_FILL_UNIFORM, -4.0, -0.02)
                        : itera_case_input(c, "A", 2, a_dim, ITERA_FILL_UNIFORM,
                                           fast ? -30.0 : -4.0, -0.02);
    int32_t B = sequence(c, "B", &s, n, strided, ITERA_FILL_NORMAL, 0.7, 0.7);
    int32_t C = sequence(c, "C", &s, n, strided, ITERA_FILL_NORMAL, 0.7, 0.7);
    int32_t in[8] = {x, dt, A, B, C, ITERA_NONE, ITERA_NONE, ITERA_NONE};
    int32_t out[2] = {ITERA_NEW, boundaries ? ITERA_NEW : ITERA_NONE};
    if (skip)
        in[5] = itera_case_input(c, "D", 1, &s.channels, ITERA_FILL_NORMAL, 0.5, 1.0);
    if (gate)
        in[6] = sequence(c, "z", &s, s.channels, strided, ITERA_FILL_NORMAL, 0.0, 2.0);
    if (state)
        in[7] = itera_case_input(c, "state", 3, (int64_t[]){s.batch, s.channels, n},
                                 ITERA_FILL_NORMAL, 0.0, 1.0);
    if (state || !boundaries)
        no_gradient(c);
    snprintf(c->label, sizeof c->label, "B=%d T=%d C=%d N=%d chunk=%d%s%s%s%s%s%s", (int)s.batch,
             (int)s.time, (int)s.channels, (int)n, attr.chunk, skip ? " D" : "", gate ? " z" : "",
             state ? " state" : "", boundaries ? " boundaries" : "", strided ? " strided" : "",
             fast ? " fast decay" : "");
    itera_record(c->program, ITERA_OP_selective_scan, &attr, in, out);
    return true;
}

bool itera_case_ssd_scan(struct itera_case *c)
{
    /* heads, groups, channels of a head, states */
    static const struct {
        int16_t batch, time, heads, groups, width, states, chunk;
    } named[] = {
        {1, 70, 2, 1, 64, 32, 64}, {1, 1, 4, 1, 64, 128, 0},  {2, 65, 2, 2, 16, 16, 32},
        {1, 7, 3, 1, 5, 17, 0},    {1, 8, 1, 1, 33, 9, 3},    {1, 130, 1, 1, 8, 8, 128},
        {1, 1, 1, 1, 1, 1, 0},     {1, 3, 6, 3, 7, 64, 2},    {2, 12, 4, 2, 31, 15, 5},
        {1, 200, 2, 1, 3, 5, 100}, {1, 64, 1, 1, 16, 65, 0},  {1, 40, 2, 1, 65, 7, 64},
        {1, 9, 2, 1, 3, 256, 4},   {1, 20, 1, 1, 2, 300, 64},
    };
    enum { NAMED = sizeof named / sizeof *named };
    const bool skip = c->index % 2 == 0, state = c->index % 3 == 1, strided = c->index % 5 >= 3;
    const bool boundaries = !state || c->index % 4 == 0, fast = c->index % 9 == 8;
    struct sizes s;
    int64_t width, n;
    struct itera_attr attr = {0};

    if (c->index >= NAMED + 20)
        return false;
    if (c->index < NAMED) {
        s.batch = named[c->index].batch;
        s.time = named[c->index].time;
        attr.heads = named[c->index].heads;
        attr.groups = named[c->index].groups;
        attr.chunk = named[c->index].chunk;
        width = named[c->index].width;
        n = named[c->index].states;
    } else {
        s.batch = itera_case_pick(c, 1, 2);
        s.time = itera_case_size(c, 80);
        attr.groups = (int32_t)itera_case_pick(c, 1, 2);
        attr.heads = attr.groups * (int32_t)itera_case_pick(c, 1, 2);
        attr.chunk = (int32_t)itera_case_pick(c, 0, 80);
        width = itera_case_size(c, 18);
        n = itera_case_size(c, 34);
    }
    s.channels = attr.heads * width;
    int64_t heads = attr.heads;
    int32_t x = sequence(c, "x", &s, s.channels, strided, ITERA_FILL_NORMAL, 0.3, 1.0);
    int32_t dt =
        sequence(c, "dt", &s, heads, strided, ITERA_FILL_UNIFORM, 0.001, fast ? 20.0 : 0.7);
    int32_t A = itera_case_input(c, "A", 1, &heads, ITERA_FILL_UNIFORM, fast ? -30.0 : -2.0, -0.02);
    int32_t B = sequence(c, "B", &s, attr.groups * n, strided, ITERA_FILL_NORMAL, 0.7, 0.7);
    int32_t C = sequence(c, "C", &s, attr.groups * n, strided, ITERA_FILL_NORMAL, 0.7, 0.7);
    int32_t in[7] = {x, dt, A, B, C, ITERA_NONE, ITERA_NONE};
    int32_t out[2] = {ITERA_NEW, boundaries ? ITERA_NEW : ITERA_NONE};
    if (skip)
        in[5] = itera_case_input(c, "D", 1, &heads, ITERA_FILL_NORMAL, 0.5, 1.0);
    if (state)
        in[6] = itera_case_input(c, "state", 4, (int64_t[]){s.batch, heads, width, n},
                                 ITERA_FILL_NORMAL, 0.0, 1.0);
    if (state || !boundaries)
        no_gradient(c);
    snprintf(c->label, sizeof c->label, "B=%d T=%d H=%d G=%d P=%d N=%d chunk=%d%s%s%s%s%s",
             (int)s.batch, (int)s.time, attr.heads, attr.groups, (int)width, (int)n, attr.chunk,
             skip ? " D" : "", state ? " state" : "", boundaries ? " boundaries" : "",
             strided ? " strided" : "", fast ? " fast decay" : "");
    itera_record(c->program, ITERA_OP_ssd_scan, &attr, in, out);
    return true;
}
