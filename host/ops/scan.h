/* Facts about scans that shape rules, kernels and recorders share. */
#ifndef ITERA_OPS_SCAN_H
#define ITERA_OPS_SCAN_H

#include "ops/op.h"

#define ITERA_SCAN_CHUNK      64  /* steps between boundary states when attr.chunk is 0 */
#define ITERA_SCAN_MAX_STATES 256 /* selective_scan: states per channel */

/* Steps between stored boundary states. */
static inline int64_t itera_scan_chunk(const struct itera_attr *attr)
{
    return attr->chunk > 0 ? attr->chunk : ITERA_SCAN_CHUNK;
}

/* Number of boundary states of a sequence of `time` steps. */
static inline int64_t itera_scan_chunks(const struct itera_attr *attr, int64_t time)
{
    int64_t chunk = itera_scan_chunk(attr);
    return time / chunk + (time % chunk != 0);
}

#endif
