// What the passes of grad_norm share. Squares of f32 leave its range: elements beyond 2^40 are
// scaled down by 2^80 and those below 2^-40 up, each kind with a sum of its own. Elements that are
// not finite are only noted.
#ifndef ITERA_OPTIMIZER_GLSL
#define ITERA_OPTIMIZER_GLSL
#include "itera.glsl"
#include "args/optimizer.clh"

#define LANE_BUFFER MAX_LOCAL
#include "reduce.glsl"

#define UP   1208925819614629174706176.0 // 2^80
#define DOWN 8.271806125530277e-25       // 2^-80

struct Squares {
    float small, middle, big;
    float bad; // 1: infinities, 2: NaN
};

void add_square(inout Squares s, float x)
{
    uint magnitude = floatBitsToUint(x) & 0x7fffffffu;
    if (magnitude >= 0x7f800000u)
        s.bad = max(s.bad, magnitude > 0x7f800000u ? 2.0 : 1.0);
    else if (magnitude >= 0x53800000u) // 2^40
        s.big += (x * DOWN) * (x * DOWN);
    else if (magnitude < 0x2b800000u) // 2^-40
        s.small += (x * UP) * (x * UP);
    else
        s.middle += x * x;
}

// The sums of all lanes, in all of them.
Squares group_squares(Squares s)
{
    s.small = group_sum(s.small);
    s.middle = group_sum(s.middle);
    s.big = group_sum(s.big);
    s.bad = group_max(s.bad);
    return s;
}

#endif
