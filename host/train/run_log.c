/* train.jsonl: a line per logged step and evaluation. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "core/log.h"
#include "core/number.h"
#include "format/json.h"
#include "itera/file.h"
#include "train/trainer_impl.h"

static const char NAME[] = "train.jsonl";

static enum itera_status log_failed(const struct itera_trainer *t, const char *what)
{
    return itera_fail(ITERA_ERR_IO, "%s/%s: cannot be %s: %s", t->options.directory, NAME, what,
                      strerror(errno));
}

enum itera_status itera_train_log_open(struct itera_trainer *t, int64_t bytes)
{
    char path[4096];
    enum itera_status status = itera_path_join(path, sizeof path, t->options.directory, NAME);
    if (status)
        return status;
    status = itera_file_check_output(path);
    if (status)
        return status;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return log_failed(t, "opened");
    struct stat st;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        status = itera_fail(ITERA_ERR_IO,
                            "%s: another process is training there; wait for it, or "
                            "choose another directory",
                            t->options.directory);
    } else if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        status = itera_fail(ITERA_ERR_IO, "%s: is no regular file", path);
    } else if (st.st_size < bytes) {
        itera_log(ITERA_LOG_WARNING,
                  "%s has %lld bytes, and had %lld at the checkpoint: earlier lines are missing",
                  path, (long long)st.st_size, (long long)bytes);
        bytes = st.st_size;
    }
    /* Later lines are cut off when there is one to take their place: until then the run may still
     * fail to start, and nothing is lost. */
    t->log_uncut = st.st_size > bytes;
    if (!status && lseek(fd, bytes, SEEK_SET) < 0)
        status = log_failed(t, "positioned");
    if (!status) {
        t->log = fdopen(fd, "w");
        if (!t->log)
            status = log_failed(t, "opened");
    }
    if (status) {
        close(fd);
        return status;
    }
    t->log_bytes = bytes;
    return ITERA_OK;
}

void itera_train_log_close(struct itera_trainer *t)
{
    if (t->log)
        fclose(t->log);
    t->log = NULL;
}

enum itera_status itera_train_log_sync(struct itera_trainer *t)
{
    if (!t->log)
        return ITERA_OK;
    if (fflush(t->log) != 0 || fsync(fileno(t->log)) != 0)
        return log_failed(t, "written");
    t->log_bytes = ftello(t->log);
    return t->log_bytes < 0 ? log_failed(t, "positioned") : ITERA_OK;
}

/* Before a line is written. */
static enum itera_status begin_line(struct itera_trainer *t)
{
    if (t->log_uncut && ftruncate(fileno(t->log), t->log_bytes) != 0)
        return log_failed(t, "cut");
    t->log_uncut = false;
    return ITERA_OK;
}

/* Enough digits that a float reads back as itself; JSON has no NaN. */
static void put(FILE *f, const char *key, double value)
{
    if (isfinite(value))
        itera_print(f, ", \"%s\": %.9g", key, value);
    else
        fprintf(f, ", \"%s\": null", key);
}

static enum itera_status end_line(struct itera_trainer *t)
{
    fputs("}\n", t->log);
    return fflush(t->log) != 0 || ferror(t->log) ? log_failed(t, "written") : ITERA_OK;
}

enum itera_status itera_train_log_step(struct itera_trainer *t)
{
    if (!t->log)
        return ITERA_OK;
    enum itera_status status = begin_line(t);
    if (status)
        return status;
    const struct itera_train_report *r = &t->last;
    FILE *f = t->log;
    fprintf(f, "{\"step\": %lld, \"tokens\": %lld", (long long)r->step, (long long)r->tokens);
    put(f, "loss", r->loss);
    put(f, "aux_loss", r->aux_loss);
    if (t->teacher)
        put(f, "kl_loss", r->kl_loss);
    put(f, "lr", r->lr);
    put(f, "grad_norm", r->grad_norm);
    put(f, "tokens_per_second", round(r->tokens_per_second));
    const int experts = t->program.experts;
    if (t->program.n_moe) {
        put(f, "max_load", r->max_load);
        fputs(", \"expert_load\": [", f);
        for (int i = 0; i < t->program.n_moe; i++)
            for (int e = 0; e < experts; e++)
                itera_print(f, "%s%.4f%s",
                            e   ? ", "
                            : i ? ", ["
                                : "[",
                            t->load[i * experts + e], e + 1 == experts ? "]" : "");
        fputs("]", f);
    }
    if (t->skipped)
        fprintf(f, ", \"skipped\": %lld", (long long)t->skipped);
    return end_line(t);
}

enum itera_status itera_train_log_teacher(struct itera_trainer *t)
{
    if (!t->log)
        return ITERA_OK;
    enum itera_status status = begin_line(t);
    if (status)
        return status;
    fputs("{\"step\": 0", t->log);
    put(t->log, "teacher_valid_loss", t->last.teacher_loss);
    return end_line(t);
}

enum itera_status itera_train_log_evaluation(struct itera_trainer *t)
{
    if (!t->log)
        return ITERA_OK;
    enum itera_status status = begin_line(t);
    if (status)
        return status;
    const struct itera_train_report *r = &t->last;
    FILE *f = t->log;
    fprintf(f, "{\"step\": %lld, \"tokens\": %lld", (long long)r->step, (long long)r->tokens);
    put(f, "valid_loss", r->valid_loss);
    put(f, "valid_perplexity", exp(r->valid_loss));
    put(f, "best_loss", r->best_loss);
    fprintf(f, ", \"best_step\": %lld", (long long)r->best_step);
    return end_line(t);
}

enum itera_status itera_train_log_sample(struct itera_trainer *t, const char *prompt,
                                         const char *text)
{
    if (!t->log)
        return ITERA_OK;
    enum itera_status status = begin_line(t);
    if (status)
        return status;
    json_t *line = json_pack("{s:I, s:I, s:o, s:o}", "step", (json_int_t)t->step, "tokens",
                             (json_int_t)t->last.tokens, "prompt", itera_json_from_text(prompt),
                             "sample", itera_json_from_text(text));
    char *json = line ? itera_json_write(line, 0) : NULL;
    json_decref(line);
    if (!json)
        return itera_fail(ITERA_ERR_MEMORY, "%s/%s: no memory for a sample", t->options.directory,
                          NAME);
    json[strlen(json) - 1] = '\0'; /* end_line closes it */
    fputs(json, t->log);
    free(json);
    return end_line(t);
}
