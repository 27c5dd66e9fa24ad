/* What the parity cases of moe_route cannot show, since they hold no such values: that NaN,
 * infinities and zeros of both signs are chosen by every device as by the reference. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "tests/support/test.h"

enum { ROWS = 10, EXPERTS = 5, MAX_DEVICES = 16 };

static struct itera_device *reference, *devices[MAX_DEVICES];
static int n_devices;

static const float logits[ROWS][EXPERTS] = {
    {1, NAN, 2, -1, 0},
    {NAN, NAN, NAN, NAN, NAN},
    {NAN, -INFINITY, NAN, -INFINITY, -3},
    {-INFINITY, NAN, NAN, NAN, NAN},
    {INFINITY, 1, INFINITY, 2, NAN},
    {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY},
    {-0.0f, 0, -0.0f, 0, -1},
    {1e-45f, 0, -1e-45f, 2e-45f, -0.0f},
    {3e38f, -3e38f, 0, 3e38f, 1},
    {-NAN, 5, 5, -NAN, 5},
};

struct routes {
    int32_t index[ROWS * EXPERTS];
    float weight[ROWS * EXPERTS];
};

static void route(struct itera_device *device, const struct itera_attr *attr, struct routes *out)
{
    const int64_t dim[] = {ROWS, EXPERTS}, chosen[] = {ROWS, attr->top_k};
    const size_t bytes = (size_t)(ROWS * attr->top_k) * 4;
    struct itera_program *p;
    assert_int_equal(itera_program_create(&p), ITERA_OK);
    int32_t in[] = {itera_bound(p, "logits", ITERA_F32, 2, dim)};
    int32_t made[] = {itera_bound(p, "index", ITERA_I32, 2, chosen),
                      itera_bound(p, "weight", ITERA_F32, 2, chosen)};
    itera_record(p, ITERA_OP_moe_route, attr, in, made);
    assert_int_equal(p->status, ITERA_OK);
    struct itera_buffer *x, *index, *weight;
    assert_int_equal(itera_buffer_create(device, sizeof logits, &x), ITERA_OK);
    assert_int_equal(itera_buffer_create(device, bytes, &index), ITERA_OK);
    assert_int_equal(itera_buffer_create(device, bytes, &weight), ITERA_OK);
    assert_int_equal(itera_buffer_upload(x, 0, logits, sizeof logits), ITERA_OK);
    const struct itera_binding bindings[] = {
        {in[0], x, 0}, {made[0], index, 0}, {made[1], weight, 0}};
    struct itera_executable *e;
    assert_int_equal(itera_compile(device, p, bindings, 3, NULL, NULL, &e), ITERA_OK);
    assert_int_equal(itera_run(e), ITERA_OK);
    assert_int_equal(itera_buffer_download(index, 0, out->index, bytes), ITERA_OK);
    assert_int_equal(itera_buffer_download(weight, 0, out->weight, bytes), ITERA_OK);
    itera_executable_destroy(&e);
    itera_buffer_destroy(&x);
    itera_buffer_destroy(&index);
    itera_buffer_destroy(&weight);
    itera_program_destroy(&p);
}

static void odd_values_are_chosen_alike(void **state)
{
    (void)state;
    if (!n_devices)
        skip();
    for (int k = 1; k <= EXPERTS; k++) {
        for (int how = 0; how < 3; how++) {
            struct itera_attr attr = {
                .top_k = k, .softmax_first = how > 0, .renormalize = how == 2};
            struct routes expected, got;
            route(reference, &attr, &expected);
            for (int d = 0; d < n_devices; d++) {
                route(devices[d], &attr, &got);
                assert_memory_equal(got.index, expected.index, (size_t)(ROWS * k) * 4);
                for (int i = 0; i < ROWS * k; i++) {
                    assert_int_equal(isnan(got.weight[i]), isnan(expected.weight[i]));
                    if (!isnan(expected.weight[i]))
                        assert_true(fabsf(got.weight[i] - expected.weight[i]) < 1e-6f);
                }
            }
        }
    }
}

static int open_devices(void **state)
{
    (void)state;
    struct itera_device_info *infos;
    int count;
    const struct itera_device_options ref = {.threads = 1, .isa = "ref"};
    const struct itera_device_options refuse = {.fallback = ITERA_FALLBACK_REFUSE};
    if (itera_device_open("cpu", &ref, &reference) || itera_devices(&infos, &count))
        return -1;
    for (int i = 0; i < count && n_devices < MAX_DEVICES; i++)
        if (infos[i].type != ITERA_DEVICE_CPU &&
            !itera_device_open(infos[i].id, &refuse, &devices[n_devices]))
            n_devices++;
    free(infos);
    return 0;
}

static int close_devices(void **state)
{
    (void)state;
    for (int i = 0; i < n_devices; i++)
        itera_device_close(&devices[i]);
    itera_device_close(&reference);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(odd_values_are_chosen_alike)};
    int failed = cmocka_run_group_tests(tests, open_devices, close_devices);
    return failed || n_devices ? failed : 77;
}
