// What the embedding shaders share.
#ifndef ITERA_EMBEDDING_GLSL
#define ITERA_EMBEDDING_GLSL
#include "itera.glsl"
#include "args/embedding.clh"


// An id, brought into a table.
uint table_row(int id, uint rows)
{
    return id < 0 ? 0 : min(uint(id), rows - 1);
}

#endif
