// Sums and maxima over the lanes of a workgroup of up to 1024, in a fixed order: the same every
// time. `lane_buffer` (LANE_BUFFER floats, define it smaller where that is known) is free for other
// use on return. All lanes must call. Define REDUCE_PAIRS for row_sum2.
#ifndef ITERA_REDUCE_GLSL
#define ITERA_REDUCE_GLSL
#ifdef ITERA_SUBGROUPS
#extension GL_KHR_shader_subgroup_arithmetic : require
#endif

#ifndef LANE_BUFFER
#define LANE_BUFFER 1024
#endif
shared float lane_buffer[LANE_BUFFER];

// With subgroup arithmetic, over the whole workgroup: each subgroup by itself, then all of them in
// their order, with two barriers. How lanes are numbered does not matter.
#ifdef ITERA_SUBGROUPS
#define WHOLE_GROUP(value, width, buffer, within, together)                                        \
    if (width == LANES) {                                                                          \
        value = within(value);                                                                     \
        if (subgroupElect())                                                                       \
            buffer[gl_SubgroupID] = value;                                                         \
        barrier();                                                                                 \
        value = buffer[0];                                                                         \
        for (uint s = 1; s < gl_NumSubgroups; s++)                                                 \
            value = together(value, buffer[s]);                                                    \
        barrier();                                                                                 \
        return value;                                                                              \
    }
#define SUM(a, b) ((a) + (b))
#else
#define WHOLE_GROUP(value, width, buffer, within, together)
#endif

// Reductions of each `width` consecutive lanes, a power of two that divides LANES; all of them get
// the result. Four values become one at each step, so that few barriers are needed.
float row_sum(float value, uint width)
{
    WHOLE_GROUP(value, width, lane_buffer, subgroupAdd, SUM)
    uint i = LANE & (width - 1);
    lane_buffer[LANE] = value;
    barrier();
    for (uint n = width; n > 1;) {
        uint stride = n >= 4 ? n / 4 : 1;
        if (i < stride) {
            float sum = lane_buffer[LANE];
            for (uint j = stride; j < n; j += stride)
                sum += lane_buffer[LANE + j];
            lane_buffer[LANE] = sum;
        }
        n = stride;
        barrier();
    }
    float result = lane_buffer[LANE - i];
    barrier();
    return result;
}

float row_max(float value, uint width)
{
    WHOLE_GROUP(value, width, lane_buffer, subgroupMax, max)
    uint i = LANE & (width - 1);
    lane_buffer[LANE] = value;
    barrier();
    for (uint n = width; n > 1;) {
        uint stride = n >= 4 ? n / 4 : 1;
        if (i < stride) {
            float most = lane_buffer[LANE];
            for (uint j = stride; j < n; j += stride)
                most = max(most, lane_buffer[LANE + j]);
            lane_buffer[LANE] = most;
        }
        n = stride;
        barrier();
    }
    float result = lane_buffer[LANE - i];
    barrier();
    return result;
}

#ifdef REDUCE_PAIRS
shared vec2 lane_pairs[LANE_BUFFER];

// Two sums at the price of one.
vec2 row_sum2(vec2 value, uint width)
{
    WHOLE_GROUP(value, width, lane_pairs, subgroupAdd, SUM)
    uint i = LANE & (width - 1);
    lane_pairs[LANE] = value;
    barrier();
    for (uint n = width; n > 1;) {
        uint stride = n >= 4 ? n / 4 : 1;
        if (i < stride) {
            vec2 sum = lane_pairs[LANE];
            for (uint j = stride; j < n; j += stride)
                sum += lane_pairs[LANE + j];
            lane_pairs[LANE] = sum;
        }
        n = stride;
        barrier();
    }
    vec2 result = lane_pairs[LANE - i];
    barrier();
    return result;
}
#endif

// The sum over the lanes of a workgroup whose numbers agree in the low `shift` bits: lanes seen as
// rows of 1 << shift, summed down the columns. All of a column get the result.
float stack_sum(float value, uint shift)
{
    WHOLE_GROUP(value, LANES >> shift, lane_buffer, subgroupAdd, SUM)
    uint i = LANE >> shift;
    lane_buffer[LANE] = value;
    barrier();
    for (uint n = LANES >> shift; n > 1;) {
        uint stride = n >= 4 ? n / 4 : 1;
        if (i < stride) {
            float sum = lane_buffer[LANE];
            for (uint j = stride; j < n; j += stride)
                sum += lane_buffer[LANE + (j << shift)];
            lane_buffer[LANE] = sum;
        }
        n = stride;
        barrier();
    }
    float result = lane_buffer[LANE & ((1u << shift) - 1)];
    barrier();
    return result;
}

// The whole workgroup, whose size is a power of two.
float group_sum(float value)
{
    return row_sum(value, LANES);
}

float group_max(float value)
{
    return row_max(value, LANES);
}

#endif
