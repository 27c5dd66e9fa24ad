#version 450
#extension GL_GOOGLE_include_directive : require
#include "loss.glsl"

ARGS(cross_entropy_bwd_args)
IN(1, scale)
IN(2, logits)
IN_INT(3, targets)
IN(4, lse)
OUT(5, dlogits)

// A workgroup takes ELEMENTS elements of a row for each invocation.
void main()
{
    uint row = GROUP / p.tiles, first = GROUP % p.tiles * ELEMENTS * LANES + LANE;
    if (row >= p.rows)
        return;
    uint target = TARGET(row);
    float g = scale.v[p.scale_at], log_sum = lse.v[p.lse_at + row];
    for (uint i = 0; i < ELEMENTS; i++) {
        uint col = first + i * LANES;
        if (col >= p.cols)
            break;
        float x = logits.v[p.logits_at + row * p.logits_ld + col] - log_sum;
        float d = col == target ? -one_minus_exp_neg(-x) : exp(x);
        dlogits.v[p.dlogits_at + row * p.dlogits_ld + col] = target < p.cols ? d * g : 0.0;
    }
}
