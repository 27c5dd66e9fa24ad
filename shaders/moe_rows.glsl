// Rows of four neighbouring columns at a time, as one value where all rows begin at multiples of 16
// bytes. Such an operand stands under two names: x, and x_quads.
#ifndef ITERA_MOE_ROWS_GLSL
#define ITERA_MOE_ROWS_GLSL
#include "moe.glsl"

#define IN_ROWS(slot, name)                                                                        \
    IN(slot, name)                                                                                 \
    ITERA_OPERAND(slot, readonly, vec4, name##_quads)
#define OUT_ROWS(slot, name)                                                                       \
    OUT(slot, name)                                                                                \
    ITERA_OPERAND(slot, , vec4, name##_quads)
#define QUADS(name, n) (((p.name##_at | p.name##_ld) & 3) == 0 && n == 4)

// value = n columns (4, or fewer at the end of a row) of a row from c on; the others are 0.
#define LOAD4(name, row, c, n, value)                                                              \
    {                                                                                              \
        uint at = p.name##_at + (row) * p.name##_ld + (c);                                         \
        if (QUADS(name, n)) {                                                                      \
            value = name##_quads.v[at / 4];                                                        \
        } else {                                                                                   \
            value = vec4(name.v[at], 0, 0, 0);                                                     \
            if (n > 1)                                                                             \
                value.y = name.v[at + 1];                                                          \
            if (n > 2)                                                                             \
                value.z = name.v[at + 2];                                                          \
            if (n > 3)                                                                             \
                value.w = name.v[at + 3];                                                          \
        }                                                                                          \
    }

// And back.
#define STORE4(name, row, c, n, value)                                                             \
    {                                                                                              \
        uint at = p.name##_at + (row) * p.name##_ld + (c);                                         \
        if (QUADS(name, n)) {                                                                      \
            name##_quads.v[at / 4] = value;                                                        \
        } else {                                                                                   \
            name.v[at] = value.x;                                                                  \
            if (n > 1)                                                                             \
                name.v[at + 1] = value.y;                                                          \
            if (n > 2)                                                                             \
                name.v[at + 2] = value.z;                                                          \
            if (n > 3)                                                                             \
                name.v[at + 3] = value.w;                                                          \
        }                                                                                          \
    }

#endif
