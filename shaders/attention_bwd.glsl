// What the passes of attention's gradient share. Scores are computed anew, once for dq and once for
// dk and dv, so that every element has one writer.
#ifndef ITERA_ATTENTION_BWD_GLSL
#define ITERA_ATTENTION_BWD_GLSL
#include "attention.glsl"

ARGS(attention_bwd_args)
IN(1, dy)
IN(2, q)
IN(3, k)
IN(4, v)
IN(5, lse)
IN(6, delta)
OUT(7, dq)
OUT(8, dk)
OUT(9, dv)

shared uint q_rows[MAX_TILE_ROWS], dy_rows[MAX_TILE_ROWS];

// What the gradient of a score needs of its row.
struct RowTerms {
    float lse, delta;
    uint limit; // keys that the row sees
};

RowTerms terms_of(uint row, uint pair)
{
    uint t = row / p.share, head = pair * p.share + row % p.share;
    return RowTerms(lse.v[p.lse_at + head * p.lse_ld + t], delta.v[p.delta_at + head * p.time + t],
                    t + 1);
}

// The weight of key `key` in the row, and the gradient of its score. One key alone weighs 1
// whatever that is.
vec2 weight_and_slope(float score, float dweight, RowTerms terms, uint key)
{
    if (key >= terms.limit)
        return vec2(0.0);
    float weight = exp(score * p.scale - terms.lse);
    return vec2(weight, terms.limit > 1 ? weight * (dweight - terms.delta) * p.scale : 0.0);
}

#endif
