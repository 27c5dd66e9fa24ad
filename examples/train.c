/* Trains a small model on a text, over the public interface of libitera, and goes on where it was
 * stopped:
 *
 *     cc train.c $(pkg-config --cflags --libs itera) -o train
 *     ./train stories.txt run 1000        # run/model.safetensors; again: goes on, or says it is done
 *     ./generate run/model.safetensors "Once upon a time"
 *
 * TEXT is any UTF-8 file, or builtin:stories.
 */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include <itera/itera.h>

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
    (void)number;
    stop = 1;
}

static void print_log(void *user, enum itera_log_level level, const char *message)
{
    (void)user;
    if (level != ITERA_LOG_DEBUG)
        fprintf(stderr, "%s\n", message);
}

/* A new run, or the one that the directory has. */
static enum itera_status open_run(struct itera_device *device, const char *text,
                                  const char *directory, int64_t steps,
                                  struct itera_trainer **trainer)
{
    if (itera_trainer_can_resume(directory))
        return itera_trainer_resume(device, directory, NULL, trainer);
    /* What is not set has a default: learning rate and schedule, say. builtin:stories is validated
     * on stories of its own, a file only on what .valid names. */
    const struct itera_train_options options = {
        .preset = "itera-m-micro",
        .tokenizer = "byte",
        .data = text,
        .directory = directory,
        .steps = steps,
        .batch = 4,
        .seq = 64,
        .seed = 1,
    };
    return itera_trainer_create(device, &options, trainer);
}

static enum itera_status train(struct itera_trainer *trainer)
{
    struct itera_train_report report;
    do {
        /* One optimiser step, and what is due after it. */
        enum itera_status status = itera_trainer_step(trainer, &report);
        if (status)
            return status;
        if (report.events & ITERA_TRAIN_LOGGED)
            printf("step %lld of %lld: loss %.4f, %.0f tokens/s\n", (long long)report.step,
                   (long long)report.steps, report.loss, report.tokens_per_second);
        if (report.events & ITERA_TRAIN_EVALUATED)
            printf("step %lld: validation loss %.4f (perplexity %.2f)%s\n", (long long)report.step,
                   report.valid_loss, exp(report.valid_loss),
                   report.events & ITERA_TRAIN_IMPROVED ? ", the best" : "");
        fflush(stdout);
    } while (!(report.events & ITERA_TRAIN_FINISHED) && !stop);
    if (report.events & ITERA_TRAIN_FINISHED) {
        printf("finished after %lld steps: %s\n", (long long)report.step, report.finish);
        return ITERA_OK;
    }
    printf("stopped after %lld steps; run it again to go on\n", (long long)report.step);
    return itera_trainer_save(trainer);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: train TEXT DIRECTORY [STEPS]\n");
        return 2;
    }
    const int64_t steps = argc > 3 ? atoll(argv[3]) : 1000;
    itera_set_log(print_log, NULL); /* errors too: what, where, and what to do */
    signal(SIGINT, on_signal);
    struct itera_device *device = NULL;
    struct itera_trainer *trainer = NULL;
    enum itera_status status = itera_device_open("auto", NULL, &device);
    if (!status)
        status = open_run(device, argv[1], argv[2], steps, &trainer);
    if (!status)
        status = train(trainer);
    /* In reverse: a trainer belongs to its device. */
    itera_trainer_destroy(&trainer);
    itera_device_close(&device);
    return status ? 1 : 0;
}
