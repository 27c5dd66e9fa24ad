/* Stand-ins while lowerings are being written; goes when all are there. */
#include "backend/gpu/gpu.h"
#include "core/log.h"

#define ITERA_OP(name, inputs, outputs, simd, tolerance)                                           \
    __attribute__((weak)) enum itera_status itera_lower_##name(struct itera_gpu_lowering *l,       \
                                                               const struct itera_op *op)          \
    {                                                                                              \
        (void)l;                                                                                   \
        (void)op;                                                                                  \
        return itera_fail(ITERA_ERR_UNSUPPORTED, #name ": no GPU kernel yet");                     \
    }
#include "ops/op_list.h"
#undef ITERA_OP
