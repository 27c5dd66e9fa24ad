/* From ops to dispatches. */
#ifndef ITERA_BACKEND_GPU_LOWER_H
#define ITERA_BACKEND_GPU_LOWER_H

#include "backend/gpu/dispatch.h"

/* Lowers one op: itera_lower_<op>, in host/backend/gpu/lower_<family>.c. Shapes are valid. Refuses
 * (itera_refuse with l->why: op, device's lack) where the device lacks something. */
typedef enum itera_status itera_gpu_lower_fn(struct itera_gpu_lowering *l,
                                             const struct itera_op *op);
#define ITERA_OP(name, inputs, outputs, simd, tolerance) itera_gpu_lower_fn itera_lower_##name;
#include "ops/op_list.h"
#undef ITERA_OP

/* Lowers one op of a program; for `supports`, tuning, and the plan. A refusal is no error; l->why has
 * its reason. Frees nothing: the caller frees l->dispatches. */
enum itera_status itera_gpu_lower_op(struct itera_gpu_lowering *l, int32_t index, int forced);

/* The backend table's `supports` for every GPU backend. */
enum itera_status itera_gpu_supports(struct itera_device *device,
                                     const struct itera_program *program, const struct itera_op *op,
                                     struct itera_reason *why);

#endif
