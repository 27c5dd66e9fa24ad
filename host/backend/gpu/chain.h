/* Chains of ops that are computed together, in fewer dispatches than one each: rules over recorded
 * programs. What passes between the ops of a chain, and is read by nobody else, may never be made. */
#ifndef ITERA_BACKEND_GPU_CHAIN_H
#define ITERA_BACKEND_GPU_CHAIN_H

#include "backend/gpu/lower.h"

/* The parts that ops have in chains. */
enum itera_gpu_role {
    ITERA_ROLE_ROWS,    /* makes the rows of a product: a norm, or silu_mul */
    ITERA_ROLE_PRODUCT, /* matmul */
    ITERA_ROLE_CONV,
    ITERA_ROLE_SCAN,
    ITERA_ROLE_B_NORM, /* of selective_scan's operands */
    ITERA_ROLE_C_NORM,
    ITERA_ROLE_MEAN,   /* softplus_mean */
    ITERA_ROLE_OUTPUT, /* the product of a scan's states */
    ITERA_ROLE_GATE,   /* skip_gate; of experts silu_mul */
    ITERA_ROLE_ROUTE,
    ITERA_ROLE_SORT,
    ITERA_ROLE_GATHER,
    ITERA_ROLE_UP, /* grouped_matmul */
    ITERA_ROLE_DOWN,
    ITERA_ROLE_COMBINE,
    ITERA_ROLE_SAMPLE,
    ITERA_ROLE_ADVANCE,
    ITERA_ROLES
};

struct itera_gpu_chain;

/* What is known of a program's tensors, by their bases. */
struct itera_gpu_uses {
    const struct itera_program *program;
    const struct itera_binding *const *bound; /* by base tensor; NULL: in the program's memory */
    struct itera_gpu_use {
        int32_t readers, writers; /* ops */
        int32_t writer;           /* the last of them */
    } * use;
    const bool *refused; /* per op: the chain that it is the anchor of was refused */
    /* Per op: the kind of the chain that it belongs to, or NULL. */
    const struct itera_gpu_chain_kind *const *taken;
};

/* A kind of chain. `find` sets c->op where op `anchor` is the one by which such a chain is known. */
struct itera_gpu_chain_kind {
    const char *name;
    bool (*find)(const struct itera_gpu_uses *u, int32_t anchor, struct itera_gpu_chain *c);
    enum itera_status (*lower)(struct itera_gpu_lowering *l, const struct itera_gpu_chain *c);
};

struct itera_gpu_chain {
    const struct itera_gpu_chain_kind *kind;
    int32_t anchor, last;     /* it runs in the place of its last op */
    int32_t op[ITERA_ROLES];  /* ITERA_NONE: there is none in this role */
    bool inner[ITERA_ROLES];  /* nothing that it makes is stored */
    bool shared[ITERA_ROLES]; /* other chains compute it for themselves, too */
};

extern const struct itera_gpu_chain_kind itera_gpu_chain_product, itera_gpu_chain_selective,
    itera_gpu_chain_itera, itera_gpu_chain_experts, itera_gpu_chain_sample;

/* For kinds: the op that makes tensor t, which must be an activation that nobody else writes, of t's
 * rows and columns and its only output; ITERA_NONE where there is no such op. */
int32_t itera_gpu_maker(const struct itera_gpu_uses *u, int32_t t);
/* The only reader of tensor t, an activation; ITERA_NONE where there are others. */
int32_t itera_gpu_only_reader(const struct itera_gpu_uses *u, int32_t t);
/* Whether op reads t or a view of the same base. */
bool itera_gpu_reads(const struct itera_program *p, int32_t op, int32_t t);

/* The chains of a program. */
struct itera_gpu_chains {
    struct itera_gpu_chain *list;
    int32_t n;
    const struct itera_gpu_chain **at; /* per op: the chain that runs in its place, or NULL */
    bool *member;                      /* per op: it is computed by a chain */
    int32_t *until;                    /* per op: the op in whose place it is last computed */
    bool *unmade;                      /* per tensor */
};

/* Finds those that the device takes, by lowering them with l, whose dispatches are dropped again. With
 * `apart` there are none. Destroy on success and failure alike. */
enum itera_status itera_gpu_find_chains(struct itera_gpu_lowering *l,
                                        const struct itera_binding *const *bound, int forced,
                                        bool apart, struct itera_gpu_chains *out);
void itera_gpu_chains_destroy(struct itera_gpu_chains *chains); /* leaves it empty */

/* As itera_gpu_lower_op. */
enum itera_status itera_gpu_lower_chain(struct itera_gpu_lowering *l,
                                        const struct itera_gpu_chain *c, int forced);

#endif
