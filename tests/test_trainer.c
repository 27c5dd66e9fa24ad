/* The trainer: losses fall, runs repeat and resume bit for bit, accumulation adds up, run
 * directories are safe. */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "itera/session.h"
#include "itera/trainer.h"
#include "tests/support/test.h"
#include "train/trainer_impl.h"

enum { STEPS = 24 };

static struct itera_device *device;

/* A tiny model of the itera family, with one MoE layer. */
static const char config[] =
    "{\"architecture\": \"itera\", \"vocab_size\": 257, \"hidden_size\": 16, \"num_layers\": 2,"
    " \"ssm_state_size\": 4, \"num_experts\": 4, \"expert_size\": 8, \"max_seq_length\": 32}";

static int set_up(void **state)
{
    (void)state;
    if (make_root())
        return -1;
    put(in_root("config.json"), config);
    return (device = open_cpu(1)) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    itera_device_close(&device);
    return remove_root();
}

/* Arguments for a small run; directory NULL: in memory. */
static struct itera_train_options small(const char *directory)
{
    struct itera_train_options o = {0};
    o.config = in_root("config.json");
    o.tokenizer = "byte";
    o.data = "builtin:stories?bytes=20000";
    o.directory = directory;
    o.batch = 4;
    o.seq = 16;
    o.steps = STEPS;
    o.lr = 1e-2;
    o.log_every = 1;
    o.seed = 7;
    return o;
}

struct run {
    double loss[STEPS + 1]; /* by step, from 1 */
    int64_t step;
    double max_load;
};

static void walk(struct itera_trainer *t, int64_t until, struct run *run)
{
    struct itera_train_report r;
    itera_trainer_report(t, &r);
    while (r.step < until && !(r.events & ITERA_TRAIN_FINISHED)) {
        assert_int_equal(itera_trainer_step(t, &r), ITERA_OK);
        assert_true(r.step >= 1 && r.step <= STEPS);
        run->loss[r.step] = r.loss;
        run->max_load = r.max_load;
    }
    run->step = r.step;
}

static struct run run_whole(const struct itera_train_options *o)
{
    struct run run = {0};
    struct itera_trainer *t;
    assert_int_equal(itera_trainer_create(device, o, &t), ITERA_OK);
    walk(t, o->steps, &run);
    itera_trainer_destroy(&t);
    assert_null(t);
    return run;
}

static void assert_same_run(const struct run *a, const struct run *b)
{
    assert_int_equal(a->step, b->step);
    for (int64_t i = 1; i <= a->step; i++)
        assert_memory_equal(&a->loss[i], &b->loss[i], sizeof a->loss[i]);
}

static void test_learns_and_repeats(void **state)
{
    (void)state;
    struct itera_train_options o = small(NULL);
    struct run first = run_whole(&o), second = run_whole(&o);
    assert_int_equal(first.step, STEPS);
    assert_true(fabs(first.loss[1] - log(257)) < 0.5);
    assert_true(first.loss[STEPS] < first.loss[1] - 1);
    assert_true(first.max_load >= 1 && first.max_load <= 4);
    assert_same_run(&first, &second);
    o.seed = 8;
    struct run other = run_whole(&o);
    assert_true(other.loss[1] != first.loss[1]);
}

/* Compiles for parity checks, in which every thread takes part however small the op. */
static enum itera_status compile_shared(struct itera_device *d, const struct itera_program *p,
                                        const struct itera_binding *bindings, int n,
                                        const struct itera_compile_options *options,
                                        struct itera_compile_result *result,
                                        struct itera_executable **out)
{
    struct itera_compile_options shared = *options;
    shared.checking = true;
    return itera_backend_cpu.compile(d, p, bindings, n, &shared, result, out);
}

/* With several threads a run repeats, too, and learns the same up to rounding: the work is shared
 * in a fixed way, whoever comes first. */
static void test_threads(void **state)
{
    (void)state;
    struct itera_train_options o = small(NULL);
    o.steps = 8;
    struct run alone = run_whole(&o), shared[2];
    struct itera_device *kept = device;
    const struct itera_device_options options = {.threads = 3};
    struct itera_backend sharing = itera_backend_cpu;
    sharing.compile = compile_shared;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(itera_device_open("cpu", &options, &device), ITERA_OK);
        device->backend = &sharing;
        shared[i] = run_whole(&o);
        itera_device_close(&device);
    }
    device = kept;
    assert_same_run(&shared[0], &shared[1]);
    for (int i = 1; i <= 8; i++)
        assert_true(fabs(alone.loss[i] - shared[0].loss[i]) < 1e-3 * alone.loss[i]);
}

static void test_every_family(void **state)
{
    (void)state;
    static const char *const presets[] = {"transformer-micro", "mamba-tiny", "itera-m-micro"};
    for (int i = 0; i < 3; i++) {
        struct itera_train_options o = small(NULL);
        o.config = NULL;
        o.preset = presets[i];
        o.steps = 12;
        o.batch = 2;
        o.lr = 3e-3;
        o.warmup = -1;
        struct run run = run_whole(&o);
        assert_true(run.loss[12] < run.loss[1] - 0.5);
    }
}

/* With one expert per token, too, the loss moves the router: here without balance loss and decay. */
static void test_router_of_one_expert(void **state)
{
    (void)state;
    put(in_root("one.json"),
        "{\"architecture\": \"itera\", \"vocab_size\": 257, \"hidden_size\": 16, \"num_layers\": 2,"
        " \"ssm_state_size\": 4, \"num_experts\": 4, \"top_k_experts\": 1, \"expert_size\": 8,"
        " \"max_seq_length\": 32}");
    struct itera_train_options o = small(NULL);
    o.config = in_root("one.json");
    o.dropout = o.aux_weight = o.weight_decay = -1;
    struct itera_trainer *t;
    assert_int_equal(itera_trainer_create(device, &o, &t), ITERA_OK);
    const struct itera_layout *layout = &t->model->layout;
    float *weights[2];
    for (int i = 0; i < 2; i++) {
        weights[i] = calloc((size_t)layout->elements, sizeof(float));
        assert_non_null(weights[i]);
        assert_int_equal(itera_model_read_f32(t->model, weights[i]), ITERA_OK);
        struct run run = {0};
        walk(t, 3, &run);
    }
    int routers = 0;
    for (int i = 0; i < layout->n_params; i++) {
        const struct itera_param *p = &layout->params[i];
        if (!strstr(p->name, "router"))
            continue;
        routers++;
        float most = 0;
        for (int64_t k = 0; k < itera_shape_elements(&p->shape); k++)
            most = fmaxf(most, fabsf(weights[0][p->offset + k] - weights[1][p->offset + k]));
        assert_true(most > 1e-4f);
    }
    assert_int_equal(routers, 1);
    free(weights[0]);
    free(weights[1]);
    itera_trainer_destroy(&t);
}

static void test_accumulation(void **state)
{
    (void)state;
    struct itera_train_options o = small(NULL);
    o.dropout = -1;
    o.aux_weight = -1; /* the balance loss is no mean over sequences */
    o.steps = 10;
    o.batch = 8;
    struct run whole = run_whole(&o);
    o.batch = 4;
    o.accumulate = 2;
    struct run parts = run_whole(&o);
    for (int i = 1; i <= 10; i++)
        assert_true(fabs(whole.loss[i] - parts.loss[i]) < 1e-5 * whole.loss[i]);
}

static void test_resume(void **state)
{
    (void)state;
    struct itera_train_options o = small(in_root("whole"));
    o.valid = "builtin:stories?valid&bytes=3000";
    o.eval_every = 6;
    o.save_every = 5;
    struct run whole = run_whole(&o), parts = {0};
    o.directory = in_root("parts");

    /* Stopped after steps 0, 7 and 13, which are in no checkpoint but the first and those that
     * every fifth step leaves: the lines after it come again. */
    struct itera_trainer *t;
    assert_int_equal(itera_trainer_create(device, &o, &t), ITERA_OK);
    const char *directory = o.directory;
    static const int64_t stops[] = {0, 7, 13, STEPS};
    for (int i = 0; i < 4; i++) {
        assert_true(itera_trainer_can_resume(directory));
        walk(t, stops[i], &parts);
        if (i == 2)
            assert_int_equal(itera_trainer_save(t), ITERA_OK);
        itera_trainer_destroy(&t);
        assert_int_equal(itera_trainer_resume(device, directory, NULL, &t), ITERA_OK);
    }
    struct itera_train_report r;
    assert_int_equal(itera_trainer_step(t, &r), ITERA_OK);
    assert_int_equal(r.events, ITERA_TRAIN_FINISHED);
    assert_int_equal(r.step, STEPS);
    itera_trainer_destroy(&t);
    assert_same_run(&whole, &parts);

    char *a = get(in_root("whole/train.jsonl")), *b = get(in_root("parts/train.jsonl"));
    char *x = a, *y = b;
    int lines = 0;
    while (*x && *y) {
        size_t n = strcspn(x, "\n"), m = strcspn(y, "\n");
        const char *speed = "\"tokens_per_second\": ";
        /* All but the speed is equal. */
        char *u = strstr(x, speed), *v = strstr(y, speed);
        size_t same = u && u < x + n ? (size_t)(u - x) : n;
        if (same < n) {
            assert_true(v && v < y + m);
            assert_string_equal(strndupa(strchr(u, ','), 20), strndupa(strchr(v, ','), 20));
        }
        assert_memory_equal(x, y, same);
        x += n + 1;
        y += m + 1;
        lines++;
    }
    assert_int_equal(*x, *y);
    assert_int_equal(lines, STEPS + STEPS / 6);
    free(a);
    free(b);
    struct stat st;
    assert_int_equal(stat(in_root("parts/model.safetensors"), &st), 0);
}

static void test_directories(void **state)
{
    (void)state;
    struct itera_trainer *t, *other;
    struct itera_train_options o = small(in_root("run"));
    char *directory = in_root("run");
    assert_false(itera_trainer_can_resume(directory));
    assert_int_equal(itera_trainer_resume(device, directory, NULL, &t), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_trainer_create(device, &o, &t), ITERA_OK);
    assert_int_equal(itera_trainer_resume(device, directory, NULL, &other), ITERA_ERR_IO);
    assert_non_null(strstr(itera_last_error(), "another process"));
    struct itera_train_report r;
    assert_int_equal(itera_trainer_step(t, &r), ITERA_OK);
    itera_trainer_destroy(&t);

    assert_int_equal(itera_trainer_create(device, &o, &t), ITERA_ERR_ARGUMENT);
    assert_null(t);
    assert_non_null(strstr(itera_last_error(), "(resume)"));
    o.overwrite = true;
    assert_int_equal(itera_trainer_create(device, &o, &t), ITERA_OK);
    itera_trainer_destroy(&t);

    /* Killed between the two renames. */
    assert_int_equal(rename(in_root("run/checkpoint"), in_root("run/checkpoint.old")), 0);
    assert_true(itera_trainer_can_resume(directory));
    assert_int_equal(itera_trainer_resume(device, directory, NULL, &t), ITERA_OK);
    itera_trainer_destroy(&t);

    struct itera_train_changes changes = {.data = "builtin:stories?bytes=20001&seed=5"};
    assert_int_equal(itera_trainer_resume(device, directory, &changes, &t), ITERA_ERR_FORMAT);
    assert_non_null(strstr(itera_last_error(), "not the text"));

    put(in_root("run/checkpoint.old/m.safetensors"), "not a tensor");
    assert_int_equal(itera_trainer_resume(device, directory, NULL, &t), ITERA_ERR_FORMAT);
    put(in_root("run/checkpoint.old/state.json"), "{\"format\": \"itera-train-1\", \"step\": -4}");
    assert_int_equal(itera_trainer_resume(device, directory, NULL, &t), ITERA_ERR_FORMAT);
    assert_null(t);
}

/* Zero is the default, negative is 0, and what is in force is said. */
static void test_default_options(void **state)
{
    (void)state;
    struct itera_trainer *t;
    struct itera_train_options o = {
        .steps = 1, .batch = 2, .seq = 8, .tokenizer = "byte", .data = "builtin:stories?bytes=900"};
    assert_int_equal(itera_trainer_create(device, &o, &t), ITERA_OK);
    const struct itera_train_options *is = itera_trainer_options(t);
    assert_true(is->dropout == 0.1 && is->aux_weight == 0.01 && is->clip == 1);
    assert_true(is->beta1 == 0.9 && is->beta2 == 0.95 && is->eps == 1e-8 && is->min_lr == 0.1);
    assert_true(is->weight_decay == 0.1 && is->accumulate == 1 && is->eval_tokens == 100000);
    itera_trainer_destroy(&t);
    o.dropout = o.aux_weight = o.clip = o.beta1 = o.min_lr = o.weight_decay = -1;
    o.eval_tokens = -1;
    assert_int_equal(itera_trainer_create(device, &o, &t), ITERA_OK);
    is = itera_trainer_options(t);
    assert_true(is->dropout == 0 && is->aux_weight == 0 && is->clip == 0 && is->beta1 == 0);
    assert_true(is->min_lr == 0 && is->weight_decay == 0 && is->eval_tokens == 0);
    assert_true(itera_trainer_model(t)->config.dropout == 0);
    itera_trainer_destroy(&t);
}

/* A part of the data is validated on, from the first run to a resumed one under another name. */
static void test_hold_out(void **state)
{
    (void)state;
    struct itera_trainer *t;
    struct itera_train_options o = small(in_root("held"));
    static char text[30001];
    for (size_t i = 0; i + 1 < sizeof text; i++)
        text[i] = (char)(i % 61 == 60 ? '\n' : 'a' + (i * i) % 26);
    put(in_root("own.txt"), text);
    put(in_root("moved.txt"), text);
    o.data = in_root("own.txt");
    o.hold_out = true;
    assert_int_equal(itera_trainer_create(device, &o, &t), ITERA_OK);
    int64_t tokens, windows, valid;
    itera_trainer_data(t, &tokens, &windows, &valid);
    assert_true(valid > 1000 && valid < 1600);
    assert_int_equal(tokens + valid, 30000 + 2);
    struct itera_train_report r;
    assert_int_equal(itera_trainer_step(t, &r), ITERA_OK);
    assert_int_equal(itera_trainer_save(t), ITERA_OK);
    itera_trainer_destroy(&t);
    const struct itera_train_changes moved = {.data = in_root("moved.txt")};
    assert_int_equal(itera_trainer_resume(device, in_root("held"), &moved, &t), ITERA_OK);
    assert_non_null(strstr(itera_trainer_options(t)->data, "moved.txt?train"));
    assert_non_null(strstr(itera_trainer_options(t)->valid, "moved.txt?valid"));
    itera_trainer_destroy(&t);
    /* Too short for it: all of it is trained on. Asked for none: none. */
    text[15000] = '\0';
    put(in_root("own.txt"), text);
    o.directory = NULL;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(itera_trainer_create(device, &o, &t), ITERA_OK);
        itera_trainer_data(t, &tokens, &windows, &valid);
        assert_int_equal(valid, 0);
        itera_trainer_destroy(&t);
        o.data = in_root("moved.txt");
        o.valid = "";
    }
}

/* A run becomes longer than it was, before its end and after it. */
static void test_lengthen(void **state)
{
    (void)state;
    struct itera_trainer *t;
    struct itera_train_options o = small(in_root("longer"));
    struct itera_train_report r = {0};
    assert_int_equal(itera_trainer_create(device, &o, &t), ITERA_OK);
    while (r.step < 12)
        assert_int_equal(itera_trainer_step(t, &r), ITERA_OK);
    const double at_12 = itera_train_learning_rate(&t->options, &t->plan, 12);
    assert_int_equal(itera_trainer_save(t), ITERA_OK);
    itera_trainer_destroy(&t);
    struct itera_train_changes changes = {.steps = 40};
    assert_int_equal(itera_trainer_resume(device, o.directory, &changes, &t), ITERA_OK);
    assert_true(itera_train_learning_rate(&t->options, &t->plan, 12) == at_12);
    while (!(r.events & ITERA_TRAIN_FINISHED))
        assert_int_equal(itera_trainer_step(t, &r), ITERA_OK);
    assert_int_equal(r.step, 40);
    const double lowest = t->options.lr * t->options.min_lr;
    itera_trainer_destroy(&t);
    changes.steps = 44;
    assert_int_equal(itera_trainer_resume(device, o.directory, &changes, &t), ITERA_OK);
    itera_trainer_report(t, &r);
    while (!(r.events & ITERA_TRAIN_FINISHED)) {
        assert_int_equal(itera_trainer_step(t, &r), ITERA_OK);
        assert_true(fabs(r.lr - lowest) < 1e-9);
    }
    assert_int_equal(r.step, 44);
    assert_int_equal(itera_trainer_options(t)->steps, 44);
    itera_trainer_destroy(&t);
    /* To say again how long it is changes nothing. */
    assert_int_equal(itera_trainer_resume(device, o.directory, &changes, &t), ITERA_OK);
    itera_trainer_report(t, &r);
    assert_true(r.events & ITERA_TRAIN_FINISHED);
    itera_trainer_destroy(&t);
    changes.steps = 43;
    assert_int_equal(itera_trainer_resume(device, o.directory, &changes, &t), ITERA_ERR_ARGUMENT);
    assert_non_null(strstr(itera_last_error(), "44 steps already"));
}

/* What a model in training writes is what its saved copy would; the next steps do not notice. */
static void test_sample(void **state)
{
    (void)state;
    struct itera_trainer *t, *other;
    struct itera_train_options o = small(in_root("sampled"));
    struct itera_train_report r = {0}, plain = {0};
    const struct itera_sampling sampling = {.temperature = 1, .seed = 3};
    char *text = NULL, *again = NULL;
    assert_int_equal(itera_trainer_create(device, &o, &t), ITERA_OK);
    o.directory = NULL;
    assert_int_equal(itera_trainer_create(device, &o, &other), ITERA_OK);
    while (r.step < 12) {
        assert_int_equal(itera_trainer_step(t, &r), ITERA_OK);
        assert_int_equal(itera_trainer_step(other, &plain), ITERA_OK);
        if (r.step == 8) {
            assert_int_equal(itera_trainer_sample(t, "Once", 12, &sampling, &text), ITERA_OK);
            assert_int_equal(itera_trainer_sample(t, "Once", 12, &sampling, &again), ITERA_OK);
            assert_true(strlen(text) > 0);
            assert_string_equal(text, again);
        }
        assert_true(r.loss == plain.loss);
    }
    itera_trainer_destroy(&other);
    itera_trainer_destroy(&t);
    char *log = NULL;
    size_t size;
    FILE *file = fopen(in_root("sampled/train.jsonl"), "r");
    assert_non_null(file);
    assert_true(getdelim(&log, &size, EOF, file) > 0);
    fclose(file);
    assert_non_null(strstr(log, "\"prompt\": \"Once\", \"sample\": \""));
    free(log);
    free(text);
    free(again);
}

static void test_bad_options(void **state)
{
    (void)state;
    struct itera_trainer *t;
    struct itera_train_options o = small(NULL);
    o.seq = 33;
    assert_int_equal(itera_trainer_create(device, &o, &t), ITERA_ERR_ARGUMENT);
    assert_non_null(strstr(itera_last_error(), "32 positions"));
    o = small(NULL);
    o.data = "builtin:stories?bytes=5";
    o.seq = 32;
    put(in_root("short.txt"), "hello");
    o.data = in_root("short.txt");
    assert_int_equal(itera_trainer_create(device, &o, &t), ITERA_ERR_LIMIT);
    o = small(NULL);
    o.batch = -1;
    assert_int_equal(itera_trainer_create(device, &o, &t), ITERA_ERR_ARGUMENT);
    o = small(NULL);
    o.lr = (double)NAN;
    assert_int_equal(itera_trainer_create(device, &o, &t), ITERA_ERR_ARGUMENT);
    o = small(NULL);
    o.data = in_root("no such file");
    o.directory = in_root("nothing");
    assert_int_equal(itera_trainer_create(device, &o, &t), ITERA_ERR_IO);
    assert_null(t);
    assert_int_not_equal(access(in_root("nothing"), F_OK), 0); /* no folder is left */
}

/* A run whose gradients are not finite skips its steps, and gives up after a while. */
static void test_divergence(void **state)
{
    (void)state;
    struct itera_trainer *t;
    struct itera_train_options o = small(NULL);
    o.steps = 100;
    o.schedule = ITERA_SCHEDULE_CONSTANT;
    assert_int_equal(itera_trainer_create(device, &o, &t), ITERA_OK);
    struct itera_train_report r;
    assert_int_equal(itera_trainer_step(t, &r), ITERA_OK);
    float weights[16], nan16[16];
    for (int i = 0; i < 16; i++)
        nan16[i] = NAN;
    /* The norms' weights: every token meets them. */
    const size_t at = (size_t)t->model->layout.decay_elements * 4;
    assert_int_equal(itera_buffer_download(t->model->weights, at, weights, sizeof weights), 0);
    assert_int_equal(itera_buffer_upload(t->model->weights, at, nan16, sizeof nan16), 0);
    while (r.step < 5)
        assert_int_equal(itera_trainer_step(t, &r), ITERA_OK);
    assert_int_equal(itera_buffer_upload(t->model->weights, at, weights, sizeof weights), 0);
    while (r.step < 10)
        assert_int_equal(itera_trainer_step(t, &r), ITERA_OK);
    assert_int_equal(r.skipped, 4);
    assert_int_equal(itera_trainer_step(t, &r), ITERA_OK);
    assert_int_equal(itera_trainer_step(t, &r), ITERA_OK);
    assert_true(isfinite(r.loss));
    assert_int_equal(itera_buffer_upload(t->model->weights, at, nan16, sizeof nan16), 0);
    enum itera_status status = ITERA_OK;
    while (!status && r.step < 30)
        status = itera_trainer_step(t, &r);
    assert_int_equal(status, ITERA_ERR_LIMIT);
    assert_int_equal(r.step, 22); /* counted by the step, wherever the first one is */
    assert_int_equal(r.skipped, 14);
    assert_non_null(strstr(itera_last_error(), "learning rate"));
    itera_trainer_destroy(&t);
}

/* Whatever ends a run, it ends in an error where the weights or the loss are not finite, and what
 * was saved before stays. */
static void test_divergence_at_the_end(void **state)
{
    (void)state;
    struct itera_trainer *t;
    struct itera_train_options o = small(in_root("diverged"));
    o.steps = 4;
    assert_int_equal(itera_trainer_create(device, &o, &t), ITERA_OK);
    struct itera_train_report r;
    while (itera_trainer_step(t, &r) == ITERA_OK && r.step < 2)
        ;
    assert_int_equal(itera_trainer_save(t), ITERA_OK);
    const float nan = NAN;
    const size_t at = (size_t)t->model->layout.decay_elements * 4;
    assert_int_equal(itera_buffer_upload(t->model->weights, at, &nan, sizeof nan), 0);
    assert_int_equal(itera_trainer_save(t), ITERA_ERR_LIMIT);
    assert_non_null(strstr(itera_last_error(), "weights that are not finite"));
    assert_int_equal(itera_trainer_step(t, &r), ITERA_OK);
    assert_int_equal(itera_trainer_step(t, &r), ITERA_ERR_LIMIT);
    assert_non_null(strstr(itera_last_error(), "training diverged"));
    assert_false(r.events & ITERA_TRAIN_FINISHED);
    itera_trainer_destroy(&t);
    assert_int_equal(itera_trainer_peek(in_root("diverged"), &r), ITERA_OK);
    assert_int_equal(r.step, 2);
}

static void test_early_stop(void **state)
{
    (void)state;
    struct itera_train_options o = small(NULL);
    o.valid = "builtin:stories?valid&bytes=3000";
    o.eval_every = 2;
    o.patience = 2;
    o.lr = 1e-7; /* what the first steps leave does not get better */
    o.steps = STEPS;
    o.eval_tokens = 64;
    struct itera_trainer *t;
    struct itera_train_report r = {0};
    assert_int_equal(itera_trainer_create(device, &o, &t), ITERA_OK);
    /* The best that can be: nothing is below it. */
    t->best_loss = 0;
    while (!(r.events & ITERA_TRAIN_FINISHED))
        assert_int_equal(itera_trainer_step(t, &r), ITERA_OK);
    assert_int_equal(r.step, 4);
    assert_true(isfinite(r.valid_loss));
    assert_non_null(strstr(r.finish, "validation"));
    itera_trainer_destroy(&t);
}

static void assert_close(double a, double b)
{
    assert_true(fabs(a - b) < 1e-12);
}

static void test_schedules(void **state)
{
    (void)state;
    struct itera_train_options o = itera_train_options_fill(NULL);
    o.lr = 1;
    struct itera_train_plan plan;
    itera_train_plan_start(&plan, 1000, -1);
    assert_int_equal(plan.warmup, 50);
    assert_close(itera_train_learning_rate(&o, &plan, 0), 0.02);
    assert_close(itera_train_learning_rate(&o, &plan, 49), 1);
    assert_close(itera_train_learning_rate(&o, &plan, 50), 1);
    assert_close(itera_train_learning_rate(&o, &plan, 525), 0.55);
    assert_close(itera_train_learning_rate(&o, &plan, 1000), 0.1);
    o.schedule = ITERA_SCHEDULE_LINEAR;
    assert_close(itera_train_learning_rate(&o, &plan, 525), 0.55);
    o.schedule = ITERA_SCHEDULE_CONSTANT;
    assert_close(itera_train_learning_rate(&o, &plan, 999), 1);
    itera_train_plan_start(&plan, 100000, -1);
    assert_int_equal(plan.warmup, 200);

    /* Moving the end is continuous, and still ends at the end. */
    o.schedule = ITERA_SCHEDULE_COSINE;
    itera_train_plan_start(&plan, 1000, 0);
    double before = itera_train_learning_rate(&o, &plan, 400);
    itera_train_plan_move(&plan, 400, 600);
    assert_close(itera_train_learning_rate(&o, &plan, 400), before);
    assert_true(itera_train_learning_rate(&o, &plan, 500) <
                itera_train_learning_rate(&o, &plan, 450));
    assert_close(itera_train_learning_rate(&o, &plan, 600), 0.1);
    itera_train_plan_start(&plan, 1, -1);
    assert_close(itera_train_learning_rate(&o, &plan, 0), 1);
}

/* On a GPU a step is under way when the next one is made, and that changes nothing. */
static void test_step_ahead(void **state)
{
    (void)state;
    static const char *const gpus[] = {"vulkan:0", "opencl:0"};
    enum { WALKED = 4 };
    for (int d = 0; d < 2; d++) {
        struct itera_device *gpu;
        if (itera_device_open(gpus[d], NULL, &gpu)) {
            printf("%s: not here, left out\n", gpus[d]);
            continue;
        }
        float *weights[2] = {NULL};
        size_t n = 0;
        for (int ahead = 0; ahead < 2; ahead++) {
            struct itera_train_options o = small(NULL);
            struct itera_trainer *t;
            struct itera_train_report r;
            o.accumulate = 3; /* more batches than are queued at once */
            o.log_every = ahead ? STEPS : 1;
            assert_int_equal(itera_trainer_create(gpu, &o, &t), ITERA_OK);
            for (int i = 0; i < WALKED; i++) {
                assert_int_equal(itera_trainer_step(t, &r), ITERA_OK);
                assert_int_equal(r.step, i + 1);
                assert_int_equal(t->program.n_pending, ahead && i > 0);
            }
            n = (size_t)t->model->layout.elements;
            weights[ahead] = malloc(n * sizeof *weights[ahead]);
            assert_int_equal(
                itera_buffer_download(t->model->weights, 0, weights[ahead], n * sizeof(float)),
                ITERA_OK);
            assert_int_equal(itera_trainer_save(t), ITERA_OK);
            assert_int_equal(t->program.n_pending, 0);
            assert_int_equal(itera_trainer_step(t, &r), ITERA_OK);
            itera_trainer_destroy(&t); /* with a step under way */
        }
        assert_memory_equal(weights[0], weights[1], n * sizeof(float));
        free(weights[0]);
        free(weights[1]);
        itera_device_close(&gpu);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_step_ahead),
        cmocka_unit_test(test_schedules),
        cmocka_unit_test(test_default_options),
        cmocka_unit_test(test_learns_and_repeats),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_every_family),
        cmocka_unit_test(test_router_of_one_expert),
        cmocka_unit_test(test_accumulation),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_directories),
        cmocka_unit_test(test_hold_out),
        cmocka_unit_test(test_lengthen),
        cmocka_unit_test(test_sample),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_divergence),
        cmocka_unit_test(test_divergence_at_the_end),
        cmocka_unit_test(test_early_stop),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
