/* One way from a model to an executable: record, fuse, bind, compile.
 *
 *     struct itera_model_phase run = {0};
 *     itera_phase_record(&run, model, &(struct itera_phase_options){...});
 *     ... ops of its own on run.graph.p, and itera_bind(&run.bindings, ...) ...
 *     itera_phase_compile(&run, &buffers);
 *     ... itera_run(run.executable) ...
 *     itera_phase_destroy(&run);
 *
 * Each function does nothing but return the first error of an earlier one, so that a sequence needs
 * a look at the last alone, except where it reads the graph in between. */
#ifndef ITERA_MODEL_PHASE_H
#define ITERA_MODEL_PHASE_H

#include "model/model_impl.h"

struct itera_phase_options {
    enum itera_phase phase;
    int64_t batch, time;
    int64_t positions; /* INFER: of attention caches; 0: all that the model has */
    bool logits;       /* bound, to be read */
    bool unfused;      /* op by op as recorded, for those who look at activations */
    /* Settings to record it with, of the same shapes: must outlive the phase. NULL: the model's. */
    const struct itera_config *config;
};

struct itera_model_phase {
    const struct itera_model *model; /* NULL: recorded without a device */
    struct itera_graph graph;        /* stays, as the executable refers to it */
    struct itera_bindings bindings;  /* until compiled */
    struct itera_executable *executable;
    bool fused;
    enum itera_status status;
};

/* Begins the phase anew: it is zeroed, or what an earlier attempt left. */
enum itera_status itera_phase_record(struct itera_model_phase *phase,
                                     const struct itera_model *model,
                                     const struct itera_phase_options *options);
/* The same without weights and device: for what can be told from the ops. */
enum itera_status itera_phase_record_layout(struct itera_model_phase *phase,
                                            const struct itera_config *config,
                                            const struct itera_layout *layout,
                                            const struct itera_phase_options *options);

/* Fuses; compiling does it where this was not called. `between` (may be NULL) runs when the forward
 * ops are fused and before epilogues are: there gradients are recorded, and precision is lowered. */
typedef enum itera_status itera_phase_pass(void *user, struct itera_model_phase *phase);
enum itera_status itera_phase_fuse(struct itera_model_phase *phase, itera_phase_pass *between,
                                   void *user);

/* What a graph's tensors lie in; those that it does not have may be NULL. */
struct itera_phase_buffers {
    struct itera_buffer *ids, *logits;
    struct itera_buffer *start, *states, *derived; /* INFER */
    struct itera_buffer *rng;                      /* TRAIN with dropout */
};
/* Binds the parameters and these buffers, and compiles for the model's device. */
enum itera_status itera_phase_compile(struct itera_model_phase *phase,
                                      const struct itera_phase_buffers *buffers);

void itera_phase_destroy(struct itera_model_phase *phase); /* leaves it zeroed */

#endif
