/* Staged distillation: a chain of training runs, in which each model is the teacher of the next.
 *
 * A directory DIR holds
 *   distill.json           what was asked for, so that DIR alone is enough to go on
 *   stage-1/, stage-2/ ... the runs of the intermediate students, as trainer.h has them
 *   model.safetensors ...  the last student's run
 *
 *     struct itera_distill *d;
 *     itera_distill_create(device, &options, &d);           or itera_distill_open(directory, &d)
 *     for (int i = 0; i < itera_distill_stages(d); i++) {
 *         if (itera_distill_finished(d, i))
 *             continue;
 *         itera_distill_trainer(d, i, device, NULL, &trainer, &resumed);
 *         ... itera_trainer_step until it is finished ...
 *         itera_trainer_destroy(&trainer);
 *     }
 *     itera_distill_destroy(&d);
 *
 * One thread at a time. */
#ifndef ITERA_DISTILL_H
#define ITERA_DISTILL_H

#include "itera/trainer.h"
#include "itera/version.h"

#ifdef __cplusplus
extern "C" {
#endif

struct itera_distill;

enum { ITERA_DISTILL_MAX_VIA = 16 };

/* Zero-initialise and set what matters: the teacher and directory of train. Strings need live only
 * for the call. */
struct itera_distill_options {
    /* The last student's run; teacher and directory are set. Its steps, epochs and max_minutes are
     * divided evenly among all stages, unless stage_steps is set; so are the 1000 steps of a run
     * without any of them. An intermediate student differs by its model and length alone. */
    struct itera_train_options train;
    const char *const *via; /* presets of the intermediate students, the first one's first */
    int n_via;
    int64_t stage_steps; /* of each intermediate student; 0: see train */
};

/* Looks at the teacher and all students, so that the last one's stage does not fail when the others
 * are done; takes the directory and writes distill.json. With train.overwrite, the stages and the
 * checkpoint that are there are removed. Errors: ITERA_ERR_ARGUMENT for an unknown preset, a teacher
 * or model to start from with another vocabulary or inside the directory, sequences that are too
 * long, fewer steps than stages, or when the directory has a run already; those of the files. */
ITERA_API enum itera_status itera_distill_create(struct itera_device *device,
                                                 const struct itera_distill_options *options,
                                                 struct itera_distill **out);
/* Whether directory has a distillation to go on with. */
ITERA_API bool itera_distill_can_resume(const char *directory);
/* Reads distill.json. Errors: ITERA_ERR_IO, ITERA_ERR_FORMAT. */
ITERA_API enum itera_status itera_distill_open(const char *directory, struct itera_distill **out);
ITERA_API void itera_distill_destroy(struct itera_distill **distill);

/* As given to create, defaults filled in as in itera_trainer_options; all belongs to the
 * distillation. */
ITERA_API const struct itera_distill_options *
itera_distill_options(const struct itera_distill *distill);
/* The last student's included: at least 1. Stages are counted from 0 here. */
ITERA_API int itera_distill_stages(const struct itera_distill *distill);
/* How the run of a stage begins. */
ITERA_API const struct itera_train_options *itera_distill_stage(const struct itera_distill *distill,
                                                                int stage);
/* Whether the run of a stage is over. */
ITERA_API bool itera_distill_finished(const struct itera_distill *distill, int stage);
/* The trainer of a stage whose teacher is there: resumed from its checkpoint if it has one. changes
 * may be NULL; of its max_minutes each stage gets its share, and its teacher is the first stage's.
 * Errors: as for itera_trainer_create and itera_trainer_resume. */
ITERA_API enum itera_status itera_distill_trainer(const struct itera_distill *distill, int stage,
                                                  struct itera_device *device,
                                                  const struct itera_train_changes *changes,
                                                  struct itera_trainer **out, bool *resumed);

#ifdef __cplusplus
}
#endif
#endif
