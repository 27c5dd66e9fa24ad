#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "scan.glsl"

ARGS(scan_sum_args)
IN(1, parts)
OUT(2, y)

// Rows of y = the sum over i of parts[i] (count, rows, cols), in the same order every time; row r
// is row r / span * stride + r % span + first of y. A workgroup takes `width` elements of the sum;
// its rows share the parts.
void main()
{
    uint element = GROUP * p.width + LANE % p.width, elements = p.rows * p.cols;
    uint row = element / p.cols, y_row = row / p.span * p.stride + row % p.span + p.first;
    float sum = 0.0;
    if (element < elements)
        for (uint i = LANE / p.width; i < p.count; i += SCAN_LANES / p.width)
            sum += parts.v[p.parts_at + i * elements + element];
    sum = scan_sum_rows(sum, p.width);
    if (element < elements && LANE < p.width)
        y.v[p.y_at + y_row * p.y_ld + element % p.cols] = sum;
}
