/* Distillation: the gradient is that of the combined loss, weight 0 is plain training, runs resume
 * bit for bit, and teachers that do not fit are refused. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "itera/distill.h"
#include "tests/support/test.h"
#include "train/trainer_impl.h"

enum { STEPS = 12 };

static struct itera_device *device;

static const char student_config[] =
    "{\"architecture\": \"itera\", \"vocab_size\": 257, \"hidden_size\": 16, \"num_layers\": 2,"
    " \"ssm_state_size\": 4, \"num_experts\": 4, \"expert_size\": 8, \"max_seq_length\": 32}";

/* A student of the teacher that set_up trains; directory NULL: in memory. */
static struct itera_train_options small(const char *directory)
{
    struct itera_train_options o = {0};
    o.config = in_root("student.json");
    o.teacher = in_root("teacher/model.safetensors");
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

/* One that trains alone. */
static struct itera_train_options plain(const char *directory)
{
    struct itera_train_options o = small(directory);
    o.teacher = NULL;
    o.tokenizer = "byte";
    return o;
}

struct run {
    double loss[STEPS + 1], kl[STEPS + 1]; /* by step, from 1 */
    int64_t step;
    float weights[64]; /* the first ones */
};

static void walk(struct itera_trainer *t, int64_t until, struct run *run)
{
    struct itera_train_report r;
    itera_trainer_report(t, &r);
    while (r.step < until && !(r.events & ITERA_TRAIN_FINISHED)) {
        assert_int_equal(itera_trainer_step(t, &r), ITERA_OK);
        assert_true(r.step >= 1 && r.step <= STEPS);
        run->loss[r.step] = r.loss;
        run->kl[r.step] = r.kl_loss;
    }
    run->step = r.step;
    assert_int_equal(itera_buffer_download(t->model->weights, 0, run->weights, sizeof run->weights),
                     ITERA_OK);
}

static struct run run_whole(const struct itera_train_options *o)
{
    struct run run = {0};
    struct itera_trainer *t;
    assert_int_equal(itera_trainer_create(device, o, &t), ITERA_OK);
    walk(t, o->steps, &run);
    itera_trainer_destroy(&t);
    return run;
}

static int set_up(void **state)
{
    (void)state;
    if (make_root())
        return -1;
    put(in_root("student.json"), student_config);
    if (!(device = open_cpu(1)))
        return -1;
    /* Of another family, and with more positions. */
    struct itera_train_options o = plain(in_root("teacher"));
    o.config = NULL;
    o.preset = "transformer-micro";
    run_whole(&o);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    itera_device_close(&device);
    return remove_root();
}

/* The weighted loss of the trainer's first batch, and its gradient in program.grads. */
static double loss_of(struct itera_trainer *t, const float *weights)
{
    const struct itera_train_options *o = &t->options;
    struct itera_train_figures f = {0};
    assert_int_equal(
        itera_buffer_upload(t->model->weights, 0, weights, (size_t)t->model->layout.elements * 4),
        ITERA_OK);
    assert_int_equal(itera_train_program_step(&t->program, o, 0, 0, t->data), ITERA_OK);
    assert_int_equal(itera_train_program_read(&t->program, &f), ITERA_OK);
    return (1 - o->teacher_weight) * f.loss + o->teacher_weight * f.kl_loss + f.aux_loss;
}

/* Along the gradient the loss rises by its norm, as central differences find it. */
static void check_gradient(double temperature, double weight)
{
    struct itera_train_options o = small(NULL);
    o.config = NULL;
    o.preset = "transformer-micro"; /* without the jumps that the choice of experts makes */
    o.dropout = -1;
    o.temperature = temperature;
    o.teacher_weight = weight;
    struct itera_trainer *t;
    assert_int_equal(itera_trainer_create(device, &o, &t), ITERA_OK);
    const size_t n = (size_t)t->model->layout.elements;
    float *at = calloc(n, sizeof *at), *grad = calloc(n, sizeof *grad);
    float *moved = calloc(n, sizeof *moved);
    assert_true(at && grad && moved);
    assert_int_equal(itera_buffer_download(t->model->weights, 0, at, n * 4), ITERA_OK);
    loss_of(t, at);
    assert_int_equal(itera_buffer_download(t->program.grads, 0, grad, n * 4), ITERA_OK);
    double norm = 0, step = 1e-3, loss[2];
    for (size_t i = 0; i < n; i++)
        norm += (double)grad[i] * (double)grad[i];
    norm = sqrt(norm);
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < n; i++)
            moved[i] = (float)((double)at[i] + (side ? -step : step) * (double)grad[i] / norm);
        loss[side] = loss_of(t, moved);
    }
    double found = (loss[0] - loss[1]) / (2 * step);
    assert_true(norm > 0.01);
    assert_true(fabs(found - norm) < 2e-4 * norm);
    free(at);
    free(grad);
    free(moved);
    itera_trainer_destroy(&t);
}

static void test_gradient(void **state)
{
    (void)state;
    check_gradient(2, 0.5);
    check_gradient(1, 1);
    check_gradient(4, 0.2);
    check_gradient(2, -1);
}

static void test_weight_0_is_plain_training(void **state)
{
    (void)state;
    struct itera_train_options o = plain(NULL);
    struct run alone = run_whole(&o);
    o = small(NULL);
    o.teacher_weight = -1;
    struct run watched = run_whole(&o);
    for (int i = 1; i <= STEPS; i++) {
        assert_memory_equal(&alone.loss[i], &watched.loss[i], sizeof alone.loss[i]);
        assert_true(isnan(alone.kl[i]) && watched.kl[i] > 0);
    }
    assert_memory_equal(alone.weights, watched.weights, sizeof alone.weights);
}

static void test_learns(void **state)
{
    (void)state;
    struct itera_train_options o = small(NULL);
    o.teacher_weight = 1;
    struct run run = run_whole(&o);
    assert_true(run.kl[STEPS] < 0.8 * run.kl[1]);
    /* The teacher has learnt, so the cross-entropy falls with it. */
    assert_true(run.loss[STEPS] < run.loss[1]);
    struct run again = run_whole(&o);
    assert_memory_equal(&run, &again, sizeof run);
    o.accumulate = 2;
    o.batch = 2;
    o.precision = ITERA_PRECISION_F16;
    run = run_whole(&o);
    assert_true(run.kl[STEPS] < 0.9 * run.kl[1]);
}

/* Who starts as the teacher's copy differs by nothing but rounding. */
static void test_copy_of_the_teacher(void **state)
{
    (void)state;
    struct itera_train_options o = small(NULL);
    o.config = NULL;
    o.init = o.teacher;
    o.dropout = -1;
    o.steps = 1;
    struct run run = run_whole(&o);
    assert_true(fabs(run.kl[1]) < 1e-6);
}

static void test_resume(void **state)
{
    (void)state;
    struct itera_train_options o = small(in_root("whole"));
    o.save_every = 5;
    struct run whole = run_whole(&o), parts = {0};
    char *directory = in_root("parts");
    o.directory = directory;
    copy(in_root("other.safetensors"), in_root("teacher/model.safetensors"));
    o.teacher = in_root("other.safetensors");
    struct itera_trainer *t;
    assert_int_equal(itera_trainer_create(device, &o, &t), ITERA_OK);
    walk(t, 7, &parts); /* two steps more than the checkpoint has */
    itera_trainer_destroy(&t);
    assert_int_equal(itera_trainer_resume(device, directory, NULL, &t), ITERA_OK);
    assert_non_null(itera_trainer_teacher(t));
    walk(t, 9, &parts);
    assert_int_equal(itera_trainer_save(t), ITERA_OK);
    itera_trainer_destroy(&t);

    /* Gone, another one in its place, and under its first name. */
    assert_int_equal(unlink(in_root("other.safetensors")), 0);
    assert_int_equal(itera_trainer_resume(device, directory, NULL, &t), ITERA_ERR_IO);
    copy(in_root("other.safetensors"), in_root("whole/model.safetensors"));
    assert_int_equal(itera_trainer_resume(device, directory, NULL, &t), ITERA_ERR_FORMAT);
    assert_non_null(strstr(itera_last_error(), "not the teacher"));
    const struct itera_train_changes changes = {.teacher = in_root("teacher/model.safetensors")};
    assert_int_equal(itera_trainer_resume(device, directory, &changes, &t), ITERA_OK);
    walk(t, STEPS, &parts);
    itera_trainer_destroy(&t);
    assert_memory_equal(&whole, &parts, sizeof whole);
}

static void refuse(const struct itera_train_options *o, enum itera_status status, const char *words)
{
    struct itera_trainer *t;
    assert_int_equal(itera_trainer_create(device, o, &t), status);
    assert_null(t);
    assert_says(words);
}

static void test_refusals(void **state)
{
    (void)state;
    struct itera_train_options o = small(NULL);
    o.temperature = -1;
    refuse(&o, ITERA_ERR_ARGUMENT, "temperature");
    o.temperature = (double)NAN;
    refuse(&o, ITERA_ERR_ARGUMENT, "temperature");
    o = small(NULL);
    o.teacher_weight = 1.5;
    refuse(&o, ITERA_ERR_ARGUMENT, "teacher_weight");
    o = small(NULL);
    o.teacher = in_root("nobody.safetensors");
    refuse(&o, ITERA_ERR_IO, "nobody.safetensors");
    o = small(NULL);
    o.tokenizer = "byte";
    refuse(&o, ITERA_ERR_ARGUMENT, "its own tokenizer");
    o = small(NULL);
    o.config = NULL;
    o.preset = "mamba-tiny"; /* which has no limit of its own */
    o.seq = 129;
    refuse(&o, ITERA_ERR_ARGUMENT, "teacher's 128 positions");
    o = small(in_root("teacher"));
    o.overwrite = true;
    refuse(&o, ITERA_ERR_ARGUMENT, "replaced by its student");
    o.teacher = in_root("teacher");
    refuse(&o, ITERA_ERR_ARGUMENT, "replaced by its student");
}

/* Two more models: of other size, and of the same size with other tokens. */
static void test_other_vocabularies(void **state)
{
    (void)state;
    static const char *const tokenizers[] = {"bpe:300", "word:257"};
    static const char *const words[] = {"vocabulary of 300", "another tokenizer"};
    for (int i = 0; i < 2; i++) {
        struct itera_train_options o = plain(in_root(i ? "words" : "pieces"));
        o.tokenizer = tokenizers[i];
        o.steps = 1;
        run_whole(&o);
        o = small(NULL);
        o.config = NULL;
        o.init = in_root(i ? "words/model.safetensors" : "pieces/model.safetensors");
        refuse(&o, ITERA_ERR_ARGUMENT, words[i]);
    }
}

/* A model with more rows than its tokenizer has tokens passes them on. */
static void test_padded_vocabulary(void **state)
{
    (void)state;
    struct itera_model *teacher;
    struct itera_tokenizer *tokenizer;
    const struct itera_model_options options = {.vocab = 264};
    assert_int_equal(itera_model_create(device, in_root("student.json"), &options, &teacher),
                     ITERA_OK);
    assert_int_equal(itera_model_save(teacher, in_root("bare.safetensors")), ITERA_OK);
    assert_int_equal(itera_tokenizer_create("byte", NULL, &tokenizer), ITERA_OK);
    assert_int_equal(itera_model_set_tokenizer(teacher, tokenizer), ITERA_OK);
    assert_int_equal(itera_model_save(teacher, in_root("padded.safetensors")), ITERA_OK);
    itera_model_destroy(&teacher);

    struct itera_train_options o = small(NULL);
    struct itera_trainer *t;
    o.teacher = in_root("padded.safetensors");
    assert_int_equal(itera_trainer_create(device, &o, &t), ITERA_OK);
    assert_int_equal(itera_model_info(itera_trainer_model(t))->vocab, 264);
    struct itera_train_report r;
    assert_int_equal(itera_trainer_step(t, &r), ITERA_OK);
    assert_true(isfinite(r.loss) && isfinite(r.kl_loss));
    itera_trainer_destroy(&t);

    /* One that has no tokenizer needs to be told its own. */
    o.teacher = in_root("bare.safetensors");
    refuse(&o, ITERA_ERR_ARGUMENT, "no tokenizer");
    o.tokenizer = "byte";
    assert_int_equal(itera_trainer_create(device, &o, &t), ITERA_OK);
    assert_int_equal(itera_trainer_step(t, &r), ITERA_OK);
    itera_trainer_destroy(&t);
}

/* Two stages, the first by way of another preset; as many steps as it says, and what each is. */
static void test_stages(void **state)
{
    (void)state;
    static const char *const via[] = {"itera-m-micro"};
    struct itera_distill_options o = {
        .train = small(in_root("staged")), .via = via, .n_via = 1, .stage_steps = 0};
    o.train.steps = 5;
    o.train.valid = "builtin:stories?valid&bytes=3000";
    struct itera_distill *d;
    assert_false(itera_distill_can_resume(in_root("staged")));
    assert_int_equal(itera_distill_create(device, &o, &d), ITERA_OK);
    assert_int_equal(itera_distill_stages(d), 2);
    assert_int_equal(itera_distill_stage(d, 0)->steps, 2);
    assert_int_equal(itera_distill_stage(d, 1)->steps, 3);
    struct itera_train_report r;
    for (int stage = 0; stage < 2; stage++) {
        struct itera_trainer *t;
        bool resumed;
        assert_false(itera_distill_finished(d, stage));
        assert_int_equal(itera_distill_trainer(d, stage, device, NULL, &t, &resumed), ITERA_OK);
        assert_false(resumed);
        assert_int_equal(itera_trainer_step(t, &r), ITERA_OK);
        assert_string_equal(itera_model_info(itera_trainer_teacher(t))->architecture,
                            stage ? "itera-m" : "transformer");
        itera_trainer_destroy(&t);
        itera_distill_destroy(&d);

        /* As after a kill: the directory says all, the step above is in no checkpoint. */
        assert_int_equal(itera_distill_open(in_root("staged"), &d), ITERA_OK);
        assert_int_equal(itera_distill_stages(d), 2);
        assert_int_equal(itera_distill_options(d)->n_via, 1);
        assert_int_equal(itera_distill_options(d)->train.steps, 5);
        assert_int_equal(itera_distill_finished(d, 0), stage);
        assert_int_equal(itera_distill_trainer(d, stage, device, NULL, &t, &resumed), ITERA_OK);
        assert_true(resumed);
        do {
            assert_int_equal(itera_trainer_step(t, &r), ITERA_OK);
        } while (!(r.events & ITERA_TRAIN_FINISHED));
        assert_int_equal(r.step, stage ? 3 : 2);
        assert_true(r.teacher_loss > 0 && r.valid_loss > 0);
        itera_trainer_destroy(&t);
        assert_true(itera_distill_finished(d, stage));
    }
    assert_int_equal(itera_trainer_peek(in_root("staged"), &r), ITERA_OK);
    assert_int_equal(r.step, 3);
    itera_distill_destroy(&d);

    assert_int_equal(itera_distill_create(device, &o, &d), ITERA_ERR_ARGUMENT);
    assert_non_null(strstr(itera_last_error(), "(resume)"));
    o.train.overwrite = true;
    assert_int_equal(itera_distill_create(device, &o, &d), ITERA_OK);
    assert_false(itera_distill_finished(d, 0) || itera_distill_finished(d, 1));
    itera_distill_destroy(&d);
    assert_null(d);
}

static void refuse_stages(const struct itera_distill_options *o, enum itera_status status,
                          const char *words)
{
    struct itera_distill *d;
    assert_int_equal(itera_distill_create(device, o, &d), status);
    assert_null(d);
    assert_says(words);
    assert_false(itera_distill_can_resume(o->train.directory));
}

static void test_stage_refusals(void **state)
{
    (void)state;
    static const char *const via[] = {"itera-m-micro", "micro"}, *const wrong[] = {"itera-giant"};
    struct itera_distill_options o = {.train = small(in_root("refused")), .via = via, .n_via = 2};
    o.train.steps = 2;
    refuse_stages(&o, ITERA_ERR_ARGUMENT, "2 steps cannot be divided among 3");
    o.train.steps = 30;
    o.train.seq = 64; /* the last student has 32 positions */
    refuse_stages(&o, ITERA_ERR_ARGUMENT, "32 positions");
    o.train.seq = 16;
    o.train.config = NULL;
    o.train.init = in_root("pieces/model.safetensors");
    refuse_stages(&o, ITERA_ERR_ARGUMENT, "vocabulary of 300");
    o.train.init = NULL;
    o.via = wrong;
    o.n_via = 1;
    refuse_stages(&o, ITERA_ERR_ARGUMENT, "itera-giant");
    o.n_via = 0;
    o.train.teacher = in_root("nobody.safetensors");
    refuse_stages(&o, ITERA_ERR_IO, "nobody.safetensors");
    o.train.teacher = in_root("teacher/model.safetensors");
    o.train.directory = in_root("teacher");
    o.train.overwrite = true;
    refuse_stages(&o, ITERA_ERR_ARGUMENT, "would be replaced");
    o.train.teacher = in_root("teacher");
    refuse_stages(&o, ITERA_ERR_ARGUMENT, "would be replaced");
    o.train.teacher = o.train.directory = in_root("teacher/model.safetensors");
    refuse_stages(&o, ITERA_ERR_IO, "cannot make the directory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_weight_0_is_plain_training),
        cmocka_unit_test(test_learns),
        cmocka_unit_test(test_copy_of_the_teacher),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_other_vocabularies),
        cmocka_unit_test(test_padded_vocabulary),
        cmocka_unit_test(test_stages),
        cmocka_unit_test(test_stage_refusals),
    };
    return cmocka_run_group_tests_name("distill", tests, set_up, tear_down);
}
