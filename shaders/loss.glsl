// What the losses share. Workgroups have at most MAX_LOCAL invocations.
#ifndef ITERA_LOSS_GLSL
#define ITERA_LOSS_GLSL
#include "itera.glsl"
#include "args/loss.clh"

#define LANE_BUFFER MAX_LOCAL
#include "math.glsl"
#include "reduce.glsl"

#define NOTHING uintBitsToFloat(0xff800000u) // -infinity

// sum = sum of exp((x - max) scale) over what was seen
struct Softmax {
    float max, sum;
};

// exp((x - max) scale), where max is NOTHING when nothing but that was seen
float weight_of(float x, float most, float scale)
{
    return exp((x - (most == NOTHING ? 0.0 : most)) * scale);
}

// Takes four more elements: one rescaling for all.
void add_elements(inout Softmax s, vec4 v, float scale)
{
    float most = s.max;
    for (uint i = 0; i < 4; i++)
        most = v[i] > most ? v[i] : most;
    s.sum *= weight_of(s.max, most, scale);
    for (uint i = 0; i < 4; i++)
        s.sum += weight_of(v[i], most, scale);
    s.max = most;
}

// ln sum exp(x scale) of a row as (max, the rest), by the whole workgroup: what is left of x scale
// after both are taken off is a logarithm of a probability.
vec2 join_lanes(Softmax s, float scale)
{
    float most = group_max(s.max);
    float sum = group_sum(s.sum * weight_of(s.max, most, scale));
    return vec2(most == NOTHING ? 0.0 : most, log(sum));
}

// The same, from the `cols` elements of operand x from `at` on.
#define ELEMENT(x, at, c, cols) ((c) < cols ? x.v[(at) + (c)] : NOTHING)
#define LOG_SUM_EXP(result, x, at, cols, scale)                                                    \
    {                                                                                              \
        Softmax s = Softmax(NOTHING, 0.0);                                                         \
        for (uint c = LANE; c < cols; c += 4 * LANES)                                              \
            add_elements(s, vec4(ELEMENT(x, at, c, cols), ELEMENT(x, at, c + LANES, cols),         \
                                 ELEMENT(x, at, c + 2 * LANES, cols),                              \
                                 ELEMENT(x, at, c + 3 * LANES, cols)), scale);                     \
        result = join_lanes(s, scale);                                                             \
    }

// The target of row r; `cols` or more for an ignored row.
#define TARGET(r) uint(targets.v[p.targets_at + (r) / p.target_cols * p.targets_ld +               \
                                 (r) % p.target_cols])

#endif
