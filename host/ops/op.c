#include "ops/op.h"

#include <fnmatch.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "core/log.h"

static struct itera_op_info infos[ITERA_OP_COUNT] = {
#define ITERA_OP(op, inputs, outputs, simd, nmse)                                                  \
    [ITERA_OP_##op] = {.name = #op, .def = &itera_op_##op, .tolerance = nmse},
#include "ops/op_list.h"
#undef ITERA_OP
};

/* Splits "x weight? state?!" into names and marks. */
static int parse_operands(const char *text, char (*names)[16], int capacity, uint16_t *optional,
                          uint16_t *written)
{
    int n = 0;
    while (*text && n < capacity) {
        size_t length = strcspn(text, " ?!");
        snprintf(names[n], sizeof names[n], "%.*s", (int)length, text);
        text += length;
        for (; *text == '?' || *text == '!'; text++) {
            if (*text == '?')
                *optional |= (uint16_t)(1u << n);
            else
                *written |= (uint16_t)(1u << n);
        }
        text += *text == ' ';
        n++;
    }
    return n;
}

static void build_infos(void)
{
    static const char *const operands[ITERA_OP_COUNT][2] = {
#define ITERA_OP(op, inputs, outputs, simd, nmse) [ITERA_OP_##op] = {inputs, outputs},
#include "ops/op_list.h"
#undef ITERA_OP
    };
    for (int i = 0; i < ITERA_OP_COUNT; i++) {
        struct itera_op_info *info = &infos[i];
        uint16_t unused = 0;
        info->n_in = (uint8_t)parse_operands(operands[i][0], info->in_name, ITERA_MAX_IN,
                                             &info->optional_in, &info->written_in);
        info->n_out = (uint8_t)parse_operands(operands[i][1], info->out_name, ITERA_MAX_OUT,
                                              &info->optional_out, &unused);
    }
}

const struct itera_op_info *itera_op_info(enum itera_op_kind kind)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, build_infos);
    return &infos[kind];
}

const char *itera_part_name(enum itera_part part)
{
    static const char *const names[ITERA_PART_COUNT] = {
        "embedding", "norm",    "projections", "conv", "scan",      "attention",
        "router",    "experts", "head",        "loss", "optimizer", "sample"};
    return (unsigned)part < ITERA_PART_COUNT ? names[part] : "?";
}

void itera_out(struct itera_operand_shape *out, enum itera_dtype dtype, int rank,
               const int64_t *dim)
{
    out->dtype = dtype;
    out->shape = itera_shape_make(rank, dim);
}

enum itera_status itera_infer_same(const struct itera_attr *attr,
                                   const struct itera_operand_shape *const *in,
                                   struct itera_operand_shape *out)
{
    (void)attr;
    itera_out(&out[0], in[0]->dtype, in[0]->shape.rank, in[0]->shape.dim);
    return ITERA_OK;
}

enum itera_status itera_expect(const char *what, const struct itera_operand_shape *operand,
                               enum itera_dtype dtype, int rank, const int64_t *dim)
{
    bool fits = operand->dtype == dtype && operand->shape.rank == rank;
    for (int i = 0; fits && i < rank; i++)
        fits = dim[i] < 0 || dim[i] == operand->shape.dim[i];
    if (fits)
        return ITERA_OK;
    char found[96], expected[96];
    struct itera_shape want = itera_shape_make(rank, dim);
    return itera_fail(ITERA_ERR_SHAPE, "%s is %s %s, expected %s %s", what,
                      itera_dtype_name(operand->dtype),
                      itera_shape_text(&operand->shape, found, sizeof found),
                      itera_dtype_name(dtype), itera_shape_text(&want, expected, sizeof expected));
}

enum itera_status itera_expect_same(const char *what, const struct itera_operand_shape *a,
                                    const struct itera_operand_shape *b)
{
    return itera_expect(what, b, a->dtype, a->shape.rank, a->shape.dim);
}

bool itera_op_matches(const char *globs, const char *name)
{
    char glob[128];
    for (const char *at = globs; at && *at;) {
        size_t length = strcspn(at, ",");
        if (length < sizeof glob) {
            memcpy(glob, at, length);
            glob[length] = '\0';
            if (fnmatch(glob, name, 0) == 0)
                return true;
        }
        at += length + (at[length] == ',');
    }
    return false;
}
