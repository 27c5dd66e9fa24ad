#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "scan.glsl"

ARGS { T(parts) T(y) uint count, rows, cols, width; } p;
IN(1, parts)
OUT(2, y)

// y (rows, cols) = the sum over i of parts[i] (count, rows, cols), in the same order every time. A
// workgroup takes `width` elements of y; its rows share the parts.
void main()
{
    uint element = GROUP * p.width + LANE % p.width, elements = p.rows * p.cols;
    float sum = 0.0;
    if (element < elements)
        for (uint i = LANE / p.width; i < p.count; i += SCAN_LANES / p.width)
            sum += parts.v[p.parts_at + i * elements + element];
    sum = scan_sum_rows(sum, p.width);
    if (element < elements && LANE < p.width)
        y.v[p.y_at + element / p.cols * p.y_ld + element % p.cols] = sum;
}
