/* The programs of a preset that its users run most, for those who ask a device about them. */
#ifndef ITERA_BENCH_PRESETS_H
#define ITERA_BENCH_PRESETS_H

#include "itera/model.h"
#include "program/program.h"

/* Called with each program, and how much of them is done, from 0 to 1. An error ends the walk. */
typedef enum itera_status itera_bench_program_fn(void *user, const struct itera_program *program,
                                                 double done);

/* Records the model's training step (where its weights are f32; a device without the memory leaves it
 * out, with a warning), its prefill, its evaluation and its decoding. */
enum itera_status itera_bench_programs(struct itera_model *model, itera_bench_program_fn *fn,
                                       void *user);

#endif
