// What the elementwise shaders include: how a workgroup divides its part of a matrix, and the whole
// of the ops with one input (define UNARY as the result, an expression of v) or two (BINARY, of u
// and v).
#ifndef ITERA_ELEMENTWISE_GLSL
#define ITERA_ELEMENTWISE_GLSL
#include "itera.glsl"
#include "args/elementwise.clh"
#include "math.glsl"

// A workgroup takes one tile of the matrix, a lane ELEMENTS of its elements: (row, col) and then
// each further by (row_step, col_step). `across` tiles lie side by side; 1 << shift lanes do.
// Neighbouring lanes read neighbouring elements, and all reads come before the first write, which
// the compiler could not know to be elsewhere.
#define TILE_ROW   (GROUP / p.across * p.tile_rows + (LANE >> p.shift))
#define TILE_COL   (GROUP % p.across * p.tile_cols + (LANE & ((1u << p.shift) - 1)))
#define AT(x, k)   (p.x##_at + (row + k * p.row_step) * p.x##_ld + col + k * p.col_step)
#define INSIDE(k)  (row + k * p.row_step < p.rows && col + k * p.col_step < p.cols)

// A workgroup takes 1 << shift columns of `block_rows` rows; `across` of them lie side by side. Its
// lanes above each other share a column.
#define BLOCK_INDEX (GROUP / p.across)
#define BLOCK_COL   ((GROUP % p.across << p.shift) + (LANE & ((1u << p.shift) - 1)))
#define BLOCK_ROW   (BLOCK_INDEX * p.block_rows + (LANE >> p.shift))
#define BLOCK_END   min(p.rows, (BLOCK_INDEX + 1) * p.block_rows)

#ifdef UNARY
ARGS(unary_args)
IN(1, x)
OUT(2, y)

void main()
{
    uint row = TILE_ROW, col = TILE_COL;
    float values[ELEMENTS];
    [[unroll]] for (uint k = 0; k < ELEMENTS; k++) {
        values[k] = 0.0;
        if (INSIDE(k))
            values[k] = x.v[AT(x, k)];
    }
    [[unroll]] for (uint k = 0; k < ELEMENTS; k++) {
        float v = values[k];
        if (INSIDE(k))
            y.v[AT(y, k)] = UNARY;
    }
}
#endif

#ifdef BINARY
ARGS(binary_args)
IN(1, a)
IN(2, b)
OUT(3, y)

void main()
{
    uint row = TILE_ROW, col = TILE_COL;
    float first[ELEMENTS], second[ELEMENTS];
    [[unroll]] for (uint k = 0; k < ELEMENTS; k++) {
        first[k] = second[k] = 0.0;
        if (INSIDE(k)) {
            first[k] = a.v[AT(a, k)];
            second[k] = b.v[AT(b, k)];
        }
    }
    [[unroll]] for (uint k = 0; k < ELEMENTS; k++) {
        float u = first[k], v = second[k];
        if (INSIDE(k))
            y.v[AT(y, k)] = BINARY;
    }
}
#endif

#endif
