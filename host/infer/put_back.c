/* Runs that only some of a session's sequences are to notice. A program runs all of them, always in
 * the same way, so that what a sequence computes does not depend on who else goes on; the others
 * are put back after, on the device. */
#include <string.h>

#include "infer/session_impl.h"
#include "program/program.h"

/* What a program of copies does: save to the first or the second half of `kept`, bring back from
 * one, or save to the second and bring back from where `pick` says. */
enum copies { SAVE, RESTORE, MERGE };

/* Records the copies of one state, f32 (batch, row), into or out of its rows of `kept`. */
static size_t record_state(struct itera_session *s, struct itera_buffer *buffer, size_t offset,
                           size_t row, size_t kept, enum copies what, int side, int32_t pick,
                           struct itera_program *p, struct itera_bindings *b)
{
    int64_t dim[2] = {s->batch, (int64_t)(row / 4)}, twice[2] = {2 * dim[0], dim[1]};
    int64_t half = dim[0] * dim[1], all = 2 * half;
    int32_t state = itera_bound(p, "state", ITERA_F32, 2, dim);
    itera_bind(b, state, buffer, offset);
    int32_t flat = itera_bound(p, "kept", ITERA_F32, 1, &all);
    itera_bind(b, flat, s->kept, kept);
    int32_t place = itera_view_cols(p, flat, side ? half : 0, half);
    place = itera_view_dims(p, place, 2, dim);
    if (what == RESTORE)
        itera_record(p, ITERA_OP_copy, NULL, &place, &state);
    else
        itera_record(p, ITERA_OP_copy, NULL, &state, &place);
    if (what == MERGE) {
        int32_t in[2] = {itera_view_dims(p, flat, 2, twice), pick};
        itera_record(p, ITERA_OP_embedding, NULL, in, &state);
    }
    return kept + ((size_t)all * 4 + 63) / 64 * 64;
}

static void record_states(struct itera_session *s, enum copies what, int side, int32_t pick,
                          struct itera_program *p, struct itera_bindings *b)
{
    size_t at = 0;
    for (int i = 0; i < s->n_slots; i++)
        if (!s->slots[i].per_position) /* caches are written from the position on, which stays */
            at = record_state(s, s->states, s->slots[i].offset, s->slots[i].row, at, what, side,
                              pick, p, b);
    record_state(s, s->logits, 0, (size_t)s->vocab * 4, at, what, side, pick, p, b);
}

static enum itera_status compile(struct itera_session *s, enum copies what, int side,
                                 struct itera_session_small *small)
{
    struct itera_bindings b = {0};
    if (small->executable)
        return ITERA_OK;
    enum itera_status status = itera_program_create(&small->program);
    if (status)
        return status;
    struct itera_program *p = small->program;
    int64_t batch = s->batch;
    int32_t pick = ITERA_NONE;
    if (what == MERGE) {
        pick = itera_bound(p, "pick", ITERA_I32, 1, &batch);
        itera_bind(&b, pick, s->pick, 0);
    }
    record_states(s, what, side, pick, p, &b);
    status = p->status ? p->status : b.status;
    if (!status)
        status = itera_compile(s->model->device, p, b.list, b.n, NULL, NULL, &small->executable);
    itera_bindings_free(&b);
    if (status)
        itera_program_destroy(&small->program);
    return status;
}

static size_t kept_bytes(const struct itera_session *s)
{
    size_t bytes = 0;
    for (int i = 0; i <= s->n_slots; i++) {
        const struct itera_session_slot logits = {.row = (size_t)s->vocab * 4};
        const struct itera_session_slot *slot = i < s->n_slots ? &s->slots[i] : &logits;
        if (!slot->per_position)
            bytes += (2 * (size_t)s->batch * slot->row + 63) / 64 * 64;
    }
    return bytes;
}

static enum itera_status make_kept(struct itera_session *s)
{
    return s->kept ? ITERA_OK : itera_buffer_create(s->model->device, kept_bytes(s), &s->kept);
}

enum itera_status itera_session_make_copies(struct itera_session *s)
{
    enum itera_status status = make_kept(s);
    for (int side = 0; side < 2 && !status; side++) {
        status = compile(s, SAVE, side, &s->save[side]);
        if (!status)
            status = compile(s, RESTORE, side, &s->restore[side]);
    }
    return status;
}

enum itera_status itera_session_keep(struct itera_session *s)
{
    enum itera_status status = make_kept(s);
    if (!status && !s->pick)
        status = itera_buffer_create(s->model->device, (size_t)s->batch * 4, &s->pick);
    if (!status)
        status = compile(s, SAVE, 0, &s->save[0]);
    if (!status)
        status = compile(s, MERGE, 1, &s->merge);
    if (!status)
        status = itera_buffer_download(s->rng, 0, s->rng_kept, (size_t)s->batch * 16);
    return status ? status : itera_run(s->save[0].executable);
}

enum itera_status itera_session_merge(struct itera_session *s, const uint8_t *active)
{
    for (int32_t i = 0; i < s->batch; i++)
        s->numbers[i] = active[i] ? s->batch + i : i;
    enum itera_status status = itera_buffer_upload(s->pick, 0, s->numbers, (size_t)s->batch * 4);
    if (!status)
        status = itera_run(s->merge.executable);
    if (!status)
        status = itera_buffer_download(s->rng, 0, s->numbers, (size_t)s->batch * 16);
    for (size_t i = 0; i < (size_t)s->batch && !status; i++)
        if (!active[i])
            memcpy(s->numbers + 4 * i, s->rng_kept + 4 * i, 16);
    if (!status)
        status = itera_buffer_upload(s->rng, 0, s->numbers, (size_t)s->batch * 16);
    return status ? status : itera_session_set_starts(s);
}
