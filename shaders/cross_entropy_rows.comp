#version 450
#extension GL_GOOGLE_include_directive : require
#include "loss.glsl"

ARGS(cross_entropy_rows_args)
IN(1, logits)
IN_INT(2, targets)
OUT(3, lse)
OUT(4, losses)

// A workgroup takes a row.
void main()
{
    uint row = GROUP;
    if (row >= p.rows)
        return;
    uint at = p.logits_at + row * p.logits_ld;
    vec2 parts;
    LOG_SUM_EXP(parts, logits, at, p.cols, 1.0)
    if (LANE > 0)
        return;
    uint target = TARGET(row);
    lse.v[p.lse_at + row] = parts.x + parts.y;
    losses.v[p.losses_at + row] =
        target < p.cols ? parts.x - logits.v[at + target] + parts.y : 0.0;
}
