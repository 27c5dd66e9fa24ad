/* libFuzzer: any bytes as a safetensors file; what opens is read in full. */
#include <stdint.h>
#include <stdlib.h>

#include "format/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct itera_safetensors *st;
    if (itera_safetensors_open_memory(data, size, "fuzz", &st) != ITERA_OK)
        return 0;
    size_t total = 0;
    for (size_t i = 0; i < itera_safetensors_count(st); i++) {
        const struct itera_safetensor *tensor = itera_safetensors_at(st, i);
        total += tensor->bytes;
        void *out = malloc((size_t)tensor->count * 4 + 1);
        if (!out)
            abort();
        bool is_float = itera_st_dtype_is_float(tensor->dtype);
        enum itera_status status = is_float
                                       ? itera_safetensor_read_f32(tensor, 0, tensor->count, out)
                                       : itera_safetensor_read_i32(tensor, 0, tensor->count, out);
        if (status && tensor->dtype != ITERA_ST_OTHER &&
            (is_float || tensor->dtype != ITERA_ST_I64))
            abort();
        free(out);
        /* Every name leads back to its own tensor. */
        if (itera_safetensors_find(st, tensor->name) != tensor)
            abort();
    }
    if (total > size)
        abort();
    itera_safetensors_check_finite(st);
    itera_safetensors_close(&st);
    return 0;
}
