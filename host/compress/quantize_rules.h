/* Which type each parameter of a model is to have: rules over the names of its tensors. */
#ifndef ITERA_COMPRESS_QUANTIZE_RULES_H
#define ITERA_COMPRESS_QUANTIZE_RULES_H

#include "itera/status.h"
#include "model/layout.h"

/* Of one parameter. */
struct itera_quantize_choice {
    enum itera_dtype dtype;  /* in memory */
    enum itera_dtype stored; /* in files */
    enum itera_dtype asked;  /* by the rules: another one where `dtype` had to do */
    bool named;              /* by a rule of the caller: no preset may change it */
};

/* Fills `choices` (one per parameter) from `to`, a type or "mixed", and the n_set rules
 * "PATTERN=TYPE" (or several with commas), of which the last that matches a tensor counts. Matrices
 * take any type; those whose rows are no multiple of 32 become f16 where a rule says q8 or q4.
 * Vectors stay f32 in memory, and in files too but for f16 and bf16.
 * Errors: ITERA_ERR_ARGUMENT for an unknown type, a rule of another form, a pattern that matches
 * nothing that it could change, and rules that give different types to tensors which are one
 * matrix in memory (experts of a layer, the gate and up projections). */
enum itera_status itera_quantize_choose(const struct itera_layout *layout, const char *to,
                                        const char *const *set, int n_set,
                                        struct itera_quantize_choice *choices);

#endif
