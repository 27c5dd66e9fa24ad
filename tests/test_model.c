/* Models from files of other programs: a head of their own where the configuration ties it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/file.h"
#include "format/safetensors.h"
#include "itera/model.h"
#include "itera/session.h"
#include "model/model.h"

#define FIXTURES ITERA_SOURCE_DIR "/tests/fixtures/"

static struct itera_device *device;
static char root[64];

static int set_up(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/itera-test-model-XXXXXX");
    struct itera_device_options options = {.threads = 1};
    return mkdtemp(root) && !itera_device_open("cpu", &options, &device) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    itera_device_close(&device);
    return itera_remove_tree(root);
}

static const char *in_root(const char *name)
{
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];
    assert_int_equal(itera_path_join(path, sizeof paths[0], root, name), ITERA_OK);
    return path;
}

/* A fixture with one more tensor: lm_head.weight = scale * embeddings, with
 * `columns` columns (0: as many as they have). */
static void write_with_head(const char *fixture, const char *table, float scale, int64_t columns,
                            const char *to)
{
    struct itera_safetensors *file;
    char path[512];
    snprintf(path, sizeof path, FIXTURES "%s", fixture);
    assert_int_equal(itera_safetensors_open(path, &file), ITERA_OK);
    size_t n = itera_safetensors_count(file);
    struct itera_safetensors_entry *entries = calloc(n + 1, sizeof *entries);
    assert_non_null(entries);
    float *head = NULL;
    for (size_t i = 0; i < n; i++) {
        const struct itera_safetensor *t = itera_safetensors_at(file, i);
        entries[i] = (struct itera_safetensors_entry){
            .name = t->name, .dtype = t->dtype, .rank = t->rank, .data = t->data};
        memcpy(entries[i].dim, t->dim, sizeof t->dim);
        if (strcmp(t->name, table) != 0)
            continue;
        head = malloc((size_t)t->count * sizeof *head);
        assert_non_null(head);
        assert_int_equal(itera_safetensor_read_f32(t, 0, t->count, head), ITERA_OK);
        for (int64_t k = 0; k < t->count; k++)
            head[k] *= scale;
        entries[n] =
            (struct itera_safetensors_entry){.name = "lm_head.weight",
                                             .dtype = ITERA_ST_F32,
                                             .rank = 2,
                                             .dim = {t->dim[0], columns ? columns : t->dim[1]},
                                             .data = head};
    }
    assert_non_null(head);
    struct itera_map map;
    snprintf(path, sizeof path, FIXTURES "%s/config.json", fixture);
    assert_int_equal(itera_map_open(path, &map), ITERA_OK);
    char *config = strndup((const char *)map.data, map.size);
    assert_non_null(config);
    itera_map_close(&map);
    const struct itera_safetensors_pair metadata = {"itera.config", config};
    assert_int_equal(itera_safetensors_write(to, entries, n + 1, &metadata, 1), ITERA_OK);
    itera_safetensors_close(&file);
    free(entries);
    free(head);
    free(config);
}

static void logits_of(struct itera_model *model, float *logits)
{
    static const int32_t tokens[] = {1, 2, 3};
    struct itera_session *session;
    assert_int_equal(itera_session_create(model, NULL, &session), ITERA_OK);
    assert_int_equal(itera_session_prefill(session, tokens, 3), ITERA_OK);
    assert_int_equal(itera_session_logits(session, logits), ITERA_OK);
    itera_session_destroy(&session);
}

static void test_head_of_its_own(void **state)
{
    (void)state;
    static const char table[] = "backbone.embeddings.weight";
    struct itera_model *tied, *model;
    assert_int_equal(itera_model_load(device, FIXTURES "mamba-small", &tied), ITERA_OK);
    const size_t vocab = (size_t)itera_model_info(tied)->vocab;
    float *want = calloc(vocab, sizeof *want), *got = calloc(vocab, sizeof *got);
    assert_true(want && got);
    logits_of(tied, want);
    itera_model_destroy(&tied);

    const char *path = in_root("head.safetensors"), *again = in_root("again.safetensors");
    for (int scale = 1; scale >= -1; scale -= 2) {
        write_with_head("mamba-small", table, (float)scale, 0, path);
        assert_int_equal(itera_model_load(device, path, &model), ITERA_OK);
        assert_int_equal(model->config.tied_head, scale == 1);
        /* What is saved has the head as well. */
        assert_int_equal(itera_model_save(model, again), ITERA_OK);
        itera_model_destroy(&model);
        const char *const files[] = {path, again};
        for (int f = 0; f < 2; f++) {
            assert_int_equal(itera_model_load(device, files[f], &model), ITERA_OK);
            logits_of(model, got);
            for (size_t i = 0; i < vocab; i++)
                assert_true(got[i] == (float)scale * want[i]);
            itera_model_destroy(&model);
        }
    }
    free(want);
    free(got);

    /* Of another shape, or in a family that has no such head: refused, never dropped. */
    write_with_head("mamba-small", table, 1, 1, path);
    assert_int_equal(itera_model_load(device, path, &model), ITERA_ERR_SHAPE);
    assert_non_null(strstr(itera_last_error(), "lm_head.weight"));
    write_with_head("itera-small", "embedding.weight", -1, 0, path);
    assert_int_equal(itera_model_load(device, path, &model), ITERA_ERR_FORMAT);
    assert_non_null(strstr(itera_last_error(), "lm_head.weight"));
    write_with_head("itera-small", "embedding.weight", 1, 0, path);
    assert_int_equal(itera_model_load(device, path, &model), ITERA_OK);
    itera_model_destroy(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_head_of_its_own),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
