#include "backend/gpu/kernels.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/gpu/chain.h"
#include "core/log.h"

/* Names of statistics as drivers give them (VK_KHR_pipeline_executable_properties has no list), and
 * what they stand for. RADV: "VGPRs" and what follows; ANV: "Max live registers"; NVIDIA: "Register
 * Count"; NVK: "Number of GPRs"; turnip: "Registers used". */
static const struct {
    const char *name;
    size_t offset; /* of an int64_t in struct itera_kernel_info */
} known[] = {
#define NUMBER(member) offsetof(struct itera_kernel_info, member)
    {"VGPRs", NUMBER(registers)},
    {"Max live registers", NUMBER(registers)},
    {"Register Count", NUMBER(registers)},
    {"Number of GPRs", NUMBER(registers)},
    {"Registers used", NUMBER(registers)},
    {"Registers", NUMBER(registers)},
    {"Spilled VGPRs", NUMBER(spills)},
    {"Spill Count", NUMBER(spills)},
    {"Spills to memory", NUMBER(spills)},
    {"Spill stores", NUMBER(spills)},
    {"Spill memory", NUMBER(spills)},
    {"Scratch size", NUMBER(scratch_bytes)},
    {"Scratch Memory Size", NUMBER(scratch_bytes)},
    {"Local Memory Size", NUMBER(scratch_bytes)},
    {"SLM Size", NUMBER(scratch_bytes)},
    {"Private memory", NUMBER(scratch_bytes)},
    {"LDS size", NUMBER(shared_bytes)},
    {"Workgroup Memory Size", NUMBER(shared_bytes)},
    {"Shared Memory Size", NUMBER(shared_bytes)},
    {"Local memory", NUMBER(shared_bytes)},
    {"Code size", NUMBER(code_bytes)},
    {"Code Size", NUMBER(code_bytes)},
    {"Binary Size", NUMBER(code_bytes)},
#undef NUMBER
};

void itera_gpu_statistic(struct itera_kernel_info *info, const char *name, int64_t value)
{
    size_t used = strlen(info->statistics);
    snprintf(info->statistics + used, sizeof info->statistics - used, "%s%s %lld", used ? ", " : "",
             name, (long long)value);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i].name, name))
            memcpy((char *)info + known[i].offset, &value, sizeof value);
    if (!strcmp(name, "Subgroups per SIMD") && value < 1000)
        info->waves = (int)value;
}

static void write_constants(const struct itera_gpu_dispatch *d, char *out, size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (int i = 0; i < d->n_constants && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%s=%u", i ? " " : "",
                                 d->constant[i].name, d->constant[i].value);
}

/* Appends a word to a list of words that does not have it, where there is room. */
static void add_word(char *words, size_t size, const char *word)
{
    size_t length = strlen(word), used = strlen(words);
    for (const char *at = words; (at = strstr(at, word)); at += length)
        if ((at == words || at[-1] == ' ') && (at[length] == ' ' || !at[length]))
            return;
    if (used + length + 2 < size)
        snprintf(words + used, size - used, "%s%s", used ? " " : "", word);
}

/* The kernel's entry, made if there is none; NULL without memory. */
static struct itera_kernel_info *find_or_add(struct itera_kernel_list *list,
                                             const struct itera_kernel_info *wanted, bool *found)
{
    for (int i = 0; i < list->n; i++) {
        struct itera_kernel_info *info = &list->items[i];
        *found = info->lanes == wanted->lanes && !strcmp(info->name, wanted->name) &&
                 !strcmp(info->constants, wanted->constants);
        if (*found)
            return info;
    }
    *found = false;
    if (list->n == list->cap) {
        int cap = list->cap ? list->cap * 2 : 64;
        struct itera_kernel_info *grown = realloc(list->items, (size_t)cap * sizeof *grown);
        if (!grown)
            return NULL;
        list->items = grown;
        list->cap = cap;
    }
    list->items[list->n] = *wanted;
    return &list->items[list->n++];
}

static enum itera_status add_kernel(struct itera_gpu_device *device,
                                    const struct itera_gpu_dispatch *d, const char *op,
                                    const char *used_by, struct itera_kernel_list *list)
{
    struct itera_kernel_info info = {
        .lanes = (int)(d->local[0] * d->local[1] * d->local[2]),
        .subgroup = -1,
        .waves = -1,
        .registers = -1,
        .spills = -1,
        .scratch_bytes = -1,
        .shared_bytes = -1,
        .code_bytes = -1,
    };
    snprintf(info.name, sizeof info.name, "%s", d->kernel);
    snprintf(info.op, sizeof info.op, "%s", op);
    write_constants(d, info.constants, sizeof info.constants);
    bool found;
    struct itera_kernel_info *entry = find_or_add(list, &info, &found);
    if (!entry)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to list the kernels of %s",
                          device->base.info.id);
    if (used_by)
        add_word(entry->used_by, sizeof entry->used_by, used_by);
    return found || !device->describe ? ITERA_OK : device->describe(device, d, entry);
}

/* Adds the kernels of one op computed in one way. */
static enum itera_status add_op(struct itera_gpu_device *device, struct itera_gpu_lowering *l,
                                int32_t index, int way, const char *used_by,
                                struct itera_kernel_list *list)
{
    l->n = 0;
    enum itera_status status = itera_gpu_lower_op(l, index, way);
    if (status == ITERA_ERR_UNSUPPORTED)
        return ITERA_OK;
    for (int32_t i = 0; i < l->n && !status; i++)
        status = add_kernel(device, &l->dispatches[i], itera_gpu_op_name(l), used_by, list);
    return status;
}

/* Adds the kernels of the program's chains. */
static enum itera_status add_chains(struct itera_gpu_device *device, struct itera_gpu_lowering *l,
                                    const char *ops, const char *used_by,
                                    struct itera_kernel_list *list)
{
    struct itera_gpu_chains chains = {0};
    const struct itera_binding **bound =
        calloc((size_t)l->program->n_tensors + 1, sizeof *bound); /* none is */
    if (!bound)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to list the kernels of %s",
                          device->base.info.id);
    l->n = 0;
    enum itera_status status = itera_gpu_find_chains(l, bound, -1, false, &chains);
    for (int32_t i = 0; i < chains.n && !status; i++) {
        const struct itera_gpu_chain *c = &chains.list[i];
        if (!itera_op_matches(ops, c->kind->name))
            continue;
        l->n = 0;
        status = itera_gpu_lower_chain(l, c, -1);
        for (int32_t k = 0; k < l->n && !status; k++)
            status = add_kernel(device, &l->dispatches[k], c->kind->name, used_by, list);
    }
    itera_gpu_chains_destroy(&chains);
    free((void *)bound);
    return status;
}

enum itera_status itera_gpu_kernels(struct itera_device *base, const struct itera_program *program,
                                    const char *ops, bool every_way, const char *used_by,
                                    struct itera_kernel_list *list)
{
    struct itera_gpu_device *device = (struct itera_gpu_device *)base;
    struct itera_gpu_lowering l = {.device = device, .traits = &device->traits, .program = program};
    enum itera_status status = ITERA_OK;
    for (int32_t i = 0; i < program->n_ops && !status; i++) {
        if (!itera_op_matches(ops, itera_op_info(program->ops[i].kind)->name))
            continue;
        status = add_op(device, &l, i, -1, used_by, list);
        const int ways = l.n_choices;
        for (int way = 0; every_way && way < ways && !status; way++)
            status = add_op(device, &l, i, way, NULL, list);
    }
    if (!status)
        status = add_chains(device, &l, ops, used_by, list);
    free(l.dispatches);
    return status;
}
