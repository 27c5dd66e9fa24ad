/* What the lowerings of the scans share. */
#ifndef ITERA_BACKEND_GPU_LOWER_SCAN_H
#define ITERA_BACKEND_GPU_LOWER_SCAN_H

#include "backend/gpu/lower.h"
#include "ops/scan.h"

/* A scan over `time` of `cols` independent columns of each of `batch` sequences, cut in workgroups:
 * see kernels_cl/scan.clh. */
struct itera_gpu_scan {
    enum itera_scan_variant variant;
    int64_t batch, time, cols;
    int64_t width, tiles;  /* columns of a workgroup, workgroups for all columns */
    int64_t chunk, chunks; /* steps of a chunk, chunks of a sequence; 1 unless chunked */
};

/* Which variant: the op's, if it names one, else the tuned one. */
enum itera_scan_variant itera_gpu_scan_variant(struct itera_gpu_lowering *l,
                                               const struct itera_op *op,
                                               enum itera_scan_variant fallback, int64_t batch,
                                               int64_t time, int64_t cols);
struct itera_gpu_scan itera_gpu_scan(struct itera_gpu_lowering *l, const struct itera_op *op,
                                     int64_t batch, int64_t time, int64_t cols);

/* What the first pass of a chunked scan leaves: (batch, chunks, cols) each. */
struct itera_gpu_chunks {
    struct itera_gpu_scratch decay, ends;
};
struct itera_gpu_chunks itera_gpu_chunks(struct itera_gpu_lowering *l,
                                         const struct itera_gpu_scan *s);
/* The second pass: ends become starts. state may be ITERA_NONE. */
void itera_gpu_scan_starts(struct itera_gpu_lowering *l, const struct itera_gpu_scan *s,
                           struct itera_gpu_chunks chunks, int32_t state);

/* The state operand of the third pass, or of the one pass of a scan that is not chunked, and what
 * its words say: what it is, and its row stride. */
void itera_gpu_scan_state(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d,
                          const struct itera_gpu_scan *s, struct itera_gpu_chunks chunks,
                          int32_t state);
int itera_gpu_scan_state_mode(const struct itera_gpu_scan *s, int32_t state);
int64_t itera_gpu_scan_state_ld(const struct itera_gpu_lowering *l, const struct itera_gpu_scan *s,
                                int32_t state);

/* Which rows of a (sequences, time, cols) tensor a sum is for: `span` of each sequence, from its
 * row `first` on; `stride` rows lie between sequences. */
struct itera_gpu_rows {
    int64_t sequences, span, stride, first;
};

/* These rows of y = the sum of `count` parts, (rows, cols) each, which lie in scratch one after the
 * other. */
void itera_gpu_scan_sum(struct itera_gpu_lowering *l, struct itera_gpu_scratch parts, int64_t count,
                        struct itera_gpu_rows rows, int64_t cols, int32_t y);
static inline struct itera_gpu_rows itera_gpu_all_rows(int64_t rows)
{
    return (struct itera_gpu_rows){.sequences = 1, .span = rows, .stride = rows};
}

/* The words that the kernels of linear_scan and itera_scan begin with. */
#define ITERA_SCAN_SIZES(s)                                                                        \
    .time = (s)->time, .cols = (s)->cols, .width = (s)->width, .tiles = (s)->tiles,                \
    .chunk = (s)->chunk, .chunks = (s)->chunks

#endif
