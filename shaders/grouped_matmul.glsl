// Rows sorted by expert: which rows are whose. For shaders with p.experts, p.rows and offsets.
#ifndef OFFSETS_SLOT
#define OFFSETS_SLOT 3
#endif
IN_INT(OFFSETS_SLOT, offsets)

const uint SEGMENT_CHUNK = SEGMENT_ENDS;
shared int segment_ends[SEGMENT_CHUNK];

// A run of rows begin .. end - 1 with one owner; the rows before the first expert and those after
// the last are segments too, but not owned.
struct Segment {
    uint expert, begin, end;
    bool owned;
};

// Walks the segments, cut into blocks of `height` rows, to block `block`; its rows begin at .begin
// (the end is the segment's). With height 0 a segment is one block, even when it is empty: block
// e + 1 is all of expert e. Past the last block there are no rows. Each offset counts as at least
// its predecessor and at most p.rows.
Segment find_segment(uint block, uint height)
{
    Segment s = Segment(0, 0, 0, false);
    int begin = 0;
    bool found = false;
    for (uint first = 0; first <= p.experts + 1 && !found; first += SEGMENT_CHUNK) {
        uint turn = first + LANE;
        barrier(); // the chunk before has been read
        if (LANE < SEGMENT_CHUNK && turn <= p.experts + 1)
            segment_ends[LANE] = turn <= p.experts ? offsets.v[p.offsets_at + turn] : int(p.rows);
        barrier();
        for (uint i = 0; i < min(SEGMENT_CHUNK, p.experts + 2 - first) && !found; i++) {
            int end = clamp(segment_ends[i], begin, int(p.rows));
            uint blocks = height == 0 ? 1 : (uint(end - begin) + height - 1) / height;
            if (block < blocks) {
                found = true;
                s.owned = first + i > 0 && first + i <= p.experts;
                s.expert = s.owned ? first + i - 1 : 0;
                s.begin = uint(begin) + block * height;
                s.end = uint(end);
            }
            block -= blocks;
            begin = end;
        }
    }
    return s;
}

// Nothing is added to these products.
float bias_at(uint n)
{
    return 0.0;
}

float residual_at(uint m, uint n)
{
    return 0.0;
}

void store(uint i, float value)
{
    y.v[i] = value;
}
