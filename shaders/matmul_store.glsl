// How a finished tile leaves, for kernels that stage it in shared memory in PARTS parts of 32 lines
// of TILE floats: element i of a part is STAGED(i) after stage(part), SET_STAGED changes it, and
// line `line` is row staged_row(part, line) of the tile.

const uint BATCH = 4;

// Of the shader: what is added to a sum before and after the activation, and its storage.
float bias_at(uint n);
float residual_at(uint m, uint n);
void store(uint i, float value);

// Stores the tile at (row, col) of a matrix of `rows` and `cols` that begins at element `at`.
// Activations, long as their code is, pass over what is staged: an invocation reads only its own
// there. What is added at the end is fetched for several elements before the first is stored.
void store_tile(uint at, uint ld, uint row, uint col, uint rows, uint cols, uint act)
{
    uint n = col + LANE % TILE, lines = INVOCATIONS / TILE; // at a time
    float before = n < cols ? bias_at(n) : 0.0;
    [[unroll]] for (uint part = 0; part < PARTS; part++) {
        stage(part);
        if (act != 0)
            [[dont_unroll]] for (uint i = LANE; i < 32 * TILE; i += INVOCATIONS)
                SET_STAGED(i, activate(STAGED(i) + before, act));
        for (uint line = LANE / TILE; line < 32; line += BATCH * lines) {
            uint m[BATCH];
            float after[BATCH];
            [[unroll]] for (uint i = 0; i < BATCH; i++) {
                m[i] = row + staged_row(part, line + i * lines);
                after[i] = m[i] < rows && n < cols ? residual_at(m[i], n) : 0.0;
            }
            [[unroll]] for (uint i = 0; i < BATCH; i++) {
                float sum = STAGED((line + i * lines) * TILE + LANE % TILE);
                if (m[i] < rows && n < cols)
                    store(at + m[i] * ld + n, (act != 0 ? sum : sum + before) + after[i]);
            }
        }
    }
}
