/* Safetensors: 8 bytes of little-endian header length, a JSON header, one buffer of tensors.
 * A file is checked in full when it is opened: header length, JSON, names, dtypes, shapes, and
 * that the tensors cover the buffer with no overlap and no hole.
 * Source: github.com/huggingface/safetensors, "Format". */
#ifndef ITERA_FORMAT_SAFETENSORS_H
#define ITERA_FORMAT_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "itera/status.h"

enum itera_st_dtype {
    ITERA_ST_F64,
    ITERA_ST_F32,
    ITERA_ST_F16,
    ITERA_ST_BF16,
    ITERA_ST_I64,
    ITERA_ST_I32,
    ITERA_ST_I16,
    ITERA_ST_I8,
    ITERA_ST_U8,
    ITERA_ST_BOOL,
    ITERA_ST_OTHER, /* any that is not known here: the tensor is there, its values cannot be read */
    ITERA_ST_DTYPE_COUNT,
};

#define ITERA_ST_MAX_RANK   8
#define ITERA_ST_MAX_HEADER ((size_t)100 * 1000 * 1000)

/* "F32"; never NULL. */
const char *itera_st_dtype_name(enum itera_st_dtype dtype);
size_t itera_st_dtype_bytes(enum itera_st_dtype dtype); /* of one element; 0 for ITERA_ST_OTHER */
bool itera_st_dtype_is_float(enum itera_st_dtype dtype);

/* A view of one tensor, row-major, slowest dimension first; lives as long as its file is open. */
struct itera_safetensor {
    const char *name;
    const char *source; /* the file it is in, for messages */
    enum itera_st_dtype dtype;
    const char *dtype_name; /* as the file has it, for messages */
    int rank;               /* 0: a scalar */
    int64_t dim[ITERA_ST_MAX_RANK];
    int64_t count;    /* elements */
    const void *data; /* NULL or dangling when bytes is 0 */
    size_t bytes;
    bool aligned; /* data may be read through a pointer to the element type */
};

/* Reader. Immutable once open: any number of threads may read. */
struct itera_safetensors;

/* path is a .safetensors file, a shard index (*.index.json), or a directory that holds
 * model.safetensors or model.safetensors.index.json. Files are mapped read-only.
 * Errors: ITERA_ERR_IO; ITERA_ERR_FORMAT naming file, tensor, what was found and expected. */
enum itera_status itera_safetensors_open(const char *path, struct itera_safetensors **out);
/* The same over a caller's buffer, which must stay until close. source names it in messages. */
enum itera_status itera_safetensors_open_memory(const void *data, size_t size, const char *source,
                                                struct itera_safetensors **out);
void itera_safetensors_close(struct itera_safetensors **st); /* NULL-safe, nulls *st */

/* To be called when tensors were read: ITERA_ERR_IO when a file was truncated since it was opened,
 * and what was read may be zeros. */
enum itera_status itera_safetensors_check(const struct itera_safetensors *st);

/* Tensors in file order (of their data), shard after shard. */
size_t itera_safetensors_count(const struct itera_safetensors *st);
const struct itera_safetensor *itera_safetensors_at(const struct itera_safetensors *st,
                                                    size_t index); /* NULL past the end */
/* NULL when there is none; not an error. */
const struct itera_safetensor *itera_safetensors_find(const struct itera_safetensors *st,
                                                      const char *name);
/* The tensor of this name and exactly this shape, else ITERA_ERR_FORMAT (missing) or
 * ITERA_ERR_SHAPE with both shapes in the message. */
enum itera_status itera_safetensors_expect(const struct itera_safetensors *st, const char *name,
                                           int rank, const int64_t *dim,
                                           const struct itera_safetensor **out);

/* A string of `__metadata__`, or NULL; belongs to st. */
const char *itera_safetensors_metadata(const struct itera_safetensors *st, const char *key);

/* Elements [first, first + count) of a float tensor (any alignment) as f32: F16 and BF16 exactly,
 * F64 rounded. Errors: ITERA_ERR_SHAPE for a bad range, ITERA_ERR_FORMAT for an integer tensor. */
enum itera_status itera_safetensor_read_f32(const struct itera_safetensor *tensor, int64_t first,
                                            int64_t count, float *out);
/* The same for integer and BOOL tensors; an I64 that does not fit is ITERA_ERR_FORMAT. */
enum itera_status itera_safetensor_read_i32(const struct itera_safetensor *tensor, int64_t first,
                                            int64_t count, int32_t *out);

/* Fails with ITERA_ERR_FORMAT on the first NaN or infinity (as f32), naming tensor and index.
 * Integer tensors pass. */
enum itera_status itera_safetensor_check_finite(const struct itera_safetensor *tensor);
enum itera_status itera_safetensors_check_finite(const struct itera_safetensors *st);

/* "(2, 3, 4)" into a caller's buffer; returns it. */
const char *itera_safetensors_shape_text(int rank, const int64_t *dim, char *out, size_t size);

/* Writer. */
struct itera_safetensors_entry {
    const char *name; /* UTF-8, unique, not "__metadata__" */
    enum itera_st_dtype dtype;
    int rank;
    int64_t dim[ITERA_ST_MAX_RANK];
    const void *data; /* row-major; may be NULL when a dimension is 0 */
};

struct itera_safetensors_pair {
    const char *key, *value; /* UTF-8 */
};

/* Writes path atomically (see itera_writer). The header lists the tensors in the given order and is
 * padded with spaces so that the buffer starts at a multiple of 64 bytes. In the buffer, wider
 * dtypes come first (in the given order within a width), so that every tensor is aligned to its own
 * element without holes. Errors: ITERA_ERR_ARGUMENT for a bad name, rank, dimension or key;
 * ITERA_ERR_LIMIT for a header above ITERA_ST_MAX_HEADER; ITERA_ERR_IO. */
enum itera_status itera_safetensors_write(const char *path,
                                          const struct itera_safetensors_entry *entries,
                                          size_t entry_count,
                                          const struct itera_safetensors_pair *metadata,
                                          size_t metadata_count);

#endif
