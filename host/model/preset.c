/* The named model sizes. */
#include <stdio.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "model/config.h"

struct preset {
    const char *name;
    enum itera_architecture architecture;
    int32_t vocab, hidden, layers;
    int32_t state;     /* itera, mamba, itera-m */
    int32_t experts;   /* itera, itera-m */
    int32_t width;     /* of the feed-forward or one expert */
    int32_t heads;     /* transformer */
    int32_t positions; /* itera, transformer */
};

static const struct preset presets[] = {
    {"micro", ITERA_ARCH_ITERA, 2000, 64, 3, 8, 4, 32, 0, 128},
    {"tiny", ITERA_ARCH_ITERA, 8000, 128, 4, 8, 4, 64, 0, 128},
    {"small", ITERA_ARCH_ITERA, 16000, 256, 6, 16, 8, 128, 0, 512},
    {"medium", ITERA_ARCH_ITERA, 32000, 512, 8, 32, 16, 256, 0, 1024},
    {"transformer-micro", ITERA_ARCH_TRANSFORMER, 2000, 64, 3, 0, 0, 256, 4, 128},
    {"transformer-tiny", ITERA_ARCH_TRANSFORMER, 8000, 128, 4, 0, 0, 512, 4, 128},
    {"transformer-small", ITERA_ARCH_TRANSFORMER, 16000, 256, 6, 0, 0, 1024, 8, 512},
    {"transformer-medium", ITERA_ARCH_TRANSFORMER, 32000, 512, 8, 0, 0, 2048, 8, 1024},
    /* 771,712 parameters: the 0.77M of the benchmarks. */
    {"mamba-tiny", ITERA_ARCH_MAMBA, 2000, 128, 4, 32, 0, 0, 0, 0},
    {"mamba-130m", ITERA_ARCH_MAMBA, 50280, 768, 24, 16, 0, 0, 0, 0},
    {"itera-m-micro", ITERA_ARCH_ITERA_M, 2048, 64, 4, 8, 4, 48, 2, 0},
    /* 1,099,040 parameters: below 1.2 million, with expert widths of whole SIMD tiles. */
    {"itera-m-tiny", ITERA_ARCH_ITERA_M, 2048, 128, 4, 16, 4, 96, 4, 0},
    {"itera-m-small", ITERA_ARCH_ITERA_M, 16000, 256, 6, 16, 8, 192, 8, 0},
    {"itera-m-medium", ITERA_ARCH_ITERA_M, 32000, 512, 8, 16, 16, 384, 16, 0},
};

#define PRESETS (sizeof presets / sizeof *presets)

const char *itera_config_preset_name(size_t index)
{
    return index < PRESETS ? presets[index].name : NULL;
}

static void fill_mamba_steps(struct itera_config *config)
{
    config->dt_rank = (config->hidden + 15) / 16;
    config->dt_min = 0.001;
    config->dt_max = 0.1;
    config->dt_floor = 1e-4;
}

static void fill(const struct preset *preset, struct itera_config *config)
{
    config->architecture = preset->architecture;
    config->vocab = preset->vocab;
    config->hidden = preset->hidden;
    config->layers = preset->layers;
    config->heads = preset->heads;
    config->max_positions = preset->positions;
    config->bos = config->eos = config->pad = -1;
    config->tied_head = true;
    config->ffn = preset->width;
    config->norm_eps = 1e-5;
    if (preset->architecture != ITERA_ARCH_TRANSFORMER) {
        config->state = preset->state;
        config->conv = 4;
        config->conv_bias = true;
        config->expand = 2;
        config->inner = config->expand * config->hidden;
    }
    if (preset->experts) {
        config->experts = preset->experts;
        config->top_k = 2;
        config->expert_size = preset->width;
        config->aux_weight = 0.01;
        for (int32_t l = 1; l < config->layers; l += 2)
            config->moe[l] = true;
    }
    switch (preset->architecture) {
    case ITERA_ARCH_ITERA:
    case ITERA_ARCH_TRANSFORMER:
        config->dropout = 0.1;
        break;
    case ITERA_ARCH_MAMBA:
        fill_mamba_steps(config);
        config->init_std = 0.1;
        break;
    default:
        fill_mamba_steps(config);
        config->init_std = 0.02;
        config->norm_eps = 1e-6;
        break;
    }
}

enum itera_status itera_config_preset(const char *name, struct itera_config *config)
{
    memset(config, 0, sizeof *config);
    const char *wanted = strcmp(name, "itera-m") == 0 ? "itera-m-tiny" : name;
    char list[512] = "";
    size_t used = 0;
    for (size_t i = 0; i < PRESETS; i++) {
        bool plain = presets[i].architecture == ITERA_ARCH_ITERA;
        if (strcmp(wanted, presets[i].name) == 0 || (plain && strncmp(wanted, "itera-", 6) == 0 &&
                                                     strcmp(wanted + 6, presets[i].name) == 0)) {
            fill(&presets[i], config);
            return itera_config_validate(config, presets[i].name);
        }
        if (used < sizeof list)
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "",
                                     presets[i].name);
    }
    return itera_fail(ITERA_ERR_ARGUMENT, "unknown preset \"%.60s\"; known are %s", name, list);
}

enum itera_status itera_config_find(const char *name, struct itera_config *config)
{
    size_t length = strlen(name);
    bool file = strchr(name, '/') || (length > 5 && strcmp(name + length - 5, ".json") == 0) ||
                itera_file_exists(name);
    return file ? itera_config_load(name, config) : itera_config_preset(name, config);
}
