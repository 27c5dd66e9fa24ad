#version 450
#extension GL_GOOGLE_include_directive : require
#include "elementwise.glsl"
#include "philox.glsl"

ARGS(dropout_args)
IN(1, x)
IN_INT(2, rng)
OUT(3, y)

const uint GROUP_LANES = ITERA_GPU_LOCAL;
shared uint drawn[ELEMENTS * GROUP_LANES];

// A workgroup takes ELEMENTS times its lanes of consecutive elements. Each lane draws one block of
// four numbers; they are handed out so that neighbours write neighbours.
void main()
{
    uvec4 key = uvec4(rng.v[p.rng_at], rng.v[p.rng_at + 1], rng.v[p.rng_at + 2],
                      uint(rng.v[p.rng_at + 3]) ^ p.stream);
    uvec4 block = philox(key.xy, key.zw, uvec2(THREAD, 0));
    [[unroll]] for (uint k = 0; k < ELEMENTS; k++)
        drawn[LANE * ELEMENTS + k] = block[k];
    barrier();
    float values[ELEMENTS];
    uint row[ELEMENTS], col[ELEMENTS];
    [[unroll]] for (uint k = 0; k < ELEMENTS; k++) {
        uint i = GROUP * ELEMENTS * LANES + k * LANES + LANE;
        row[k] = p.rows > 1 ? i / p.cols : (i < p.cols ? 0 : 1);
        col[k] = i - row[k] * p.cols;
        values[k] = 0.0;
        if (row[k] < p.rows)
            values[k] = x.v[p.x_at + row[k] * p.x_ld + col[k]];
    }
    [[unroll]] for (uint k = 0; k < ELEMENTS; k++) {
        bool keep = philox_uniform(drawn[k * LANES + LANE]) >= p.p;
        if (row[k] < p.rows)
            y.v[p.y_at + row[k] * p.y_ld + col[k]] = keep ? values[k] * p.factor : 0.0;
    }
}
