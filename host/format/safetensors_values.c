/* Element types of safetensors, and reading values of any type and alignment. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "format/safetensors.h"
#include "tensor/half.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "tensors are little-endian on disk and used in place");

static const struct {
    const char *name;
    uint8_t bytes;
    bool is_float;
} dtypes[ITERA_ST_DTYPE_COUNT] = {
    [ITERA_ST_F64] = {"F64", 8, true},        [ITERA_ST_F32] = {"F32", 4, true},
    [ITERA_ST_F16] = {"F16", 2, true},        [ITERA_ST_BF16] = {"BF16", 2, true},
    [ITERA_ST_I64] = {"I64", 8, false},       [ITERA_ST_I32] = {"I32", 4, false},
    [ITERA_ST_I16] = {"I16", 2, false},       [ITERA_ST_I8] = {"I8", 1, false},
    [ITERA_ST_U8] = {"U8", 1, false},         [ITERA_ST_BOOL] = {"BOOL", 1, false},
    [ITERA_ST_OTHER] = {"unknown", 0, false},
};

/* Names come from the file: long ones are cut in messages so that the rest still fits. */
#define NAME "%.160s"

const char *itera_st_dtype_name(enum itera_st_dtype dtype)
{
    return (unsigned)dtype < ITERA_ST_DTYPE_COUNT ? dtypes[dtype].name : "unknown";
}

size_t itera_st_dtype_bytes(enum itera_st_dtype dtype)
{
    return (unsigned)dtype < ITERA_ST_DTYPE_COUNT ? dtypes[dtype].bytes : 0;
}

bool itera_st_dtype_is_float(enum itera_st_dtype dtype)
{
    return (unsigned)dtype < ITERA_ST_DTYPE_COUNT && dtypes[dtype].is_float;
}

const char *itera_safetensors_shape_text(int rank, const int64_t *dim, char *out, size_t size)
{
    size_t used = (size_t)snprintf(out, size, "(");
    for (int i = 0; i < rank && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%" PRId64, i ? ", " : "", dim[i]);
    if (used < size)
        snprintf(out + used, size - used, ")");
    return out;
}

static enum itera_status check_range(const struct itera_safetensor *tensor, int64_t first,
                                     int64_t count)
{
    if (first < 0 || count < 0 || first > tensor->count || count > tensor->count - first)
        return itera_fail(ITERA_ERR_SHAPE,
                          "%s: tensor " NAME ": %" PRId64 " elements from %" PRId64
                          " are outside its %" PRId64,
                          tensor->source, tensor->name, count, first, tensor->count);
    return ITERA_OK;
}

enum itera_status itera_safetensor_read_f32(const struct itera_safetensor *tensor, int64_t first,
                                            int64_t count, float *out)
{
    enum itera_status status = check_range(tensor, first, count);
    if (status || count == 0)
        return status;
    const uint8_t *from =
        (const uint8_t *)tensor->data + (size_t)first * dtypes[tensor->dtype].bytes;
    uint16_t half;
    double wide;
    switch (tensor->dtype) {
    case ITERA_ST_F32:
        memcpy(out, from, (size_t)count * 4);
        return ITERA_OK;
    case ITERA_ST_F16:
        for (int64_t i = 0; i < count; i++) {
            memcpy(&half, from + i * 2, 2);
            out[i] = itera_f16_to_f32(half);
        }
        return ITERA_OK;
    case ITERA_ST_BF16:
        for (int64_t i = 0; i < count; i++) {
            memcpy(&half, from + i * 2, 2);
            out[i] = itera_bf16_to_f32(half);
        }
        return ITERA_OK;
    case ITERA_ST_F64:
        for (int64_t i = 0; i < count; i++) {
            memcpy(&wide, from + i * 8, 8);
            /* The conversion is undefined in C beyond the range of float (UBSan says so). */
            out[i] = wide > 0x1.ffffffp127    ? INFINITY
                     : wide < -0x1.ffffffp127 ? -INFINITY
                                              : (float)wide;
        }
        return ITERA_OK;
    default:
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: tensor " NAME ": found %s, expected F32, F16, BF16 or F64",
                          tensor->source, tensor->name, tensor->dtype_name);
    }
}

enum itera_status itera_safetensor_read_i32(const struct itera_safetensor *tensor, int64_t first,
                                            int64_t count, int32_t *out)
{
    enum itera_status status = check_range(tensor, first, count);
    if (status)
        return status;
    if (dtypes[tensor->dtype].is_float || tensor->dtype == ITERA_ST_OTHER)
        return itera_fail(ITERA_ERR_FORMAT, "%s: tensor " NAME ": found %s, expected integers",
                          tensor->source, tensor->name, tensor->dtype_name);
    size_t width = dtypes[tensor->dtype].bytes;
    const uint8_t *from = (const uint8_t *)tensor->data + (size_t)first * width;
    for (int64_t i = 0; i < count; i++, from += width) {
        int64_t value = 0;
        int32_t word;
        int16_t small;
        switch (tensor->dtype) {
        case ITERA_ST_I64:
            memcpy(&value, from, 8);
            break;
        case ITERA_ST_I32:
            memcpy(&word, from, 4);
            value = word;
            break;
        case ITERA_ST_I16:
            memcpy(&small, from, 2);
            value = small;
            break;
        case ITERA_ST_I8:
            value = (int8_t)*from;
            break;
        default:
            value = *from;
            break;
        }
        if (value < INT32_MIN || value > INT32_MAX)
            return itera_fail(ITERA_ERR_FORMAT,
                              "%s: tensor " NAME ": found %" PRId64 " at index %" PRId64
                              ", expected 32 bits",
                              tensor->source, tensor->name, value, first + i);
        out[i] = (int32_t)value;
    }
    return ITERA_OK;
}

enum itera_status itera_safetensor_check_finite(const struct itera_safetensor *tensor)
{
    enum { BLOCK = 2048 };
    float block[BLOCK];
    if (!dtypes[tensor->dtype].is_float)
        return ITERA_OK;
    for (int64_t first = 0; first < tensor->count; first += BLOCK) {
        int64_t count = tensor->count - first < BLOCK ? tensor->count - first : BLOCK;
        enum itera_status status = itera_safetensor_read_f32(tensor, first, count, block);
        if (status)
            return status;
        /* One branch a block, so that the loop vectorises; the culprit is looked for after. */
        uint32_t bad = 0;
        for (int64_t i = 0; i < count; i++)
            bad |= (uint32_t)((itera_f32_bits(block[i]) & 0x7f800000u) == 0x7f800000u);
        for (int64_t i = 0; bad && i < count; i++)
            if (!isfinite(block[i]))
                return itera_fail(ITERA_ERR_FORMAT,
                                  "%s: tensor " NAME ": found %f at index %" PRId64
                                  ", expected finite values",
                                  tensor->source, tensor->name, (double)block[i], first + i);
    }
    return ITERA_OK;
}

enum itera_status itera_safetensors_check_finite(const struct itera_safetensors *st)
{
    for (size_t i = 0; i < itera_safetensors_count(st); i++) {
        enum itera_status status = itera_safetensor_check_finite(itera_safetensors_at(st, i));
        if (status)
            return status;
    }
    return ITERA_OK;
}
