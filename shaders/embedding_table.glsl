// A table of any storage type, for shaders with the words p.table_at and p.scales.
#include "weight.glsl"

layout(constant_id = TABLE_TYPE_ID) const uint TABLE_TYPE = 0; // enum itera_dtype

// Element i from the table's beginning.
float table_element(uint i)
{
    if (TABLE_TYPE >= 4) {
        uint scale = 2 * p.table_at + p.scales + (i >> 5);
        uint word = table.v[p.table_at + word_of_block(TABLE_TYPE, i)];
        return half_of(1, table.v[scale >> 1], scale) * value_of_block(TABLE_TYPE, word, i);
    }
    i += p.table_at;
    return TABLE_TYPE == 0 ? uintBitsToFloat(table.v[i])
                           : half_of(TABLE_TYPE, table.v[i >> 1], i);
}
