/* libFuzzer: saved sequences, changed in places that the input names and with their checksum put right,
 * so that what lies behind it is reached. Loads are refused, or the sequence goes on. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/siphash.h"
#include "itera/session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { BASES = 3, ROOM = 1 << 16, EDIT = 7 };
static const char *const configs[BASES] = {"itera-odd", "transformer-small", "mamba-odd"};
static struct base {
    struct itera_session *session;
    void *bytes;
    size_t size;
} bases[BASES];

static void expect(enum itera_status status)
{
    if (status)
        abort();
}

/* A sequence with counts, penalties and biases, of a model with random weights. */
static void make(struct base *base, const char *name)
{
    static struct itera_device *device;
    char config[512];
    struct itera_model *model;
    const struct itera_model_options options = {.vocab = 50, .dropout = -1, .seed = 3};
    const struct itera_session_options two = {.batch = 2};
    const struct itera_sampling sampling = {.temperature = 1, .presence = 0.5f, .seed = 4};
    const int32_t prompt[6] = {1, 2, 3, 4, 5, 6}, tokens[2] = {7, 8};
    const float bias[2] = {0.5f, -1};
    int32_t next[2];
    if (!device)
        expect(itera_device_open("cpu", NULL, &device));
    snprintf(config, sizeof config, ITERA_SOURCE_DIR "/tests/fixtures/%s/config.json", name);
    expect(itera_model_create(device, config, &options, &model));
    expect(itera_session_create(model, &two, &base->session));
    expect(itera_session_set_sampling(base->session, -1, &sampling));
    expect(itera_session_set_bias(base->session, 0, tokens, bias, 2));
    expect(itera_session_prefill(base->session, prompt, 3));
    for (int i = 0; i < 3; i++)
        expect(itera_session_next(base->session, next));
    expect(itera_session_save(base->session, 0, &base->bytes, &base->size));
    if (base->size > ROOM / 2)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t bytes[ROOM];
    if (!bases[0].session)
        for (int i = 0; i < BASES; i++)
            make(&bases[i], configs[i]);
    if (size < 2)
        return 0;
    /* Which sequence, how much longer or shorter, then (place, what, where to go on) each. */
    const struct base *base = &bases[data[0] % BASES];
    const int more = (int8_t)data[1];
    size_t n = base->size;
    memset(bytes, 0, sizeof bytes);
    memcpy(bytes, base->bytes, n);
    n = more < 0 && n < (size_t)-more ? 0 : n + (size_t)more;
    for (size_t i = 2; i + EDIT <= size; i += EDIT) {
        uint16_t place;
        uint32_t what;
        memcpy(&place, data + i, 2);
        memcpy(&what, data + i + 2, 4);
        const size_t at = place % (n + 1), width = 1 + data[i + 6] % 4;
        if (at + width <= n)
            memcpy(bytes + at, &what, width);
    }
    if (n >= ITERA_SIPHASH_BYTES) {
        struct itera_siphash hash;
        itera_siphash_begin(&hash, (const uint8_t *)"itera sequence 1");
        itera_siphash_add(&hash, bytes, n - ITERA_SIPHASH_BYTES);
        itera_siphash_end(&hash, bytes + n - ITERA_SIPHASH_BYTES);
    }
    int32_t next[2];
    void *again;
    size_t again_size;
    struct itera_session *s = base->session;
    const enum itera_status status = itera_session_load(s, 1, bytes, n);
    if (!status) {
        /* The same bytes come back. */
        expect(itera_session_save(s, 1, &again, &again_size));
        if (again_size != n || memcmp(again, bytes, n) != 0)
            abort();
        free(again);
        for (int i = 0; i < 3; i++)
            expect(itera_session_next(s, next));
        if (next[1] < 0 || next[1] >= 50)
            abort();
        /* Finite numbers may become infinite; that is found when they are saved. */
        if (!itera_session_save(s, 1, &again, &again_size))
            free(again);
    } else if (status == ITERA_ERR_MEMORY) {
        abort();
    }
    expect(itera_session_load(s, 0, base->bytes, base->size));
    return 0;
}
