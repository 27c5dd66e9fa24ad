// Weights of any type from one function: load_<name>(at, scales, i) is element i of what begins at `at`
// (of blocks in words), `scales` as in matmul.glsl. kernels_cl/any_weight.clh holds the same.
#ifndef ANY_WEIGHT_GLSL
#define ANY_WEIGHT_GLSL
#include "weight.glsl"

#define IN_WEIGHT(slot, name, TYPE)                                                                \
    IN_UINT(slot, name)                                                                            \
    float load_##name(uint at, uint scales, uint i)                                                \
    {                                                                                              \
        if (TYPE >= 4) {                                                                           \
            uint half_at = 2 * at + scales + (i >> 5);                                             \
            return half_of(1, name.v[half_at >> 1], half_at) *                                     \
                   value_of_block(TYPE, name.v[at + word_of_block(TYPE, i)], i);                   \
        }                                                                                          \
        if (TYPE == 0)                                                                             \
            return uintBitsToFloat(name.v[at + i]);                                                \
        return half_of(TYPE, name.v[(at + i) >> 1], at + i);                                       \
    }

#endif
