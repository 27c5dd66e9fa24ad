/* Normalizers as Hugging Face's library has them. Unicode's normal forms come from utf8proc, but
 * for the order of combining marks: it sorts them in quadratic time. */
#include "text/normalize.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "core/log.h"
#include "text/matches.h"
#include "text/unicode_newer.h"
#include "text/utf8.h"

enum {
    MAX_STEPS = 64,
    /* No honest normalizer makes a text longer than this: one character becomes 18 at most. */
    LONGEST_BY_BYTE = 32,
    LONGEST_BESIDES = 1 << 16,
};

enum step_kind { STEP_FORM, STEP_LOWERCASE, STEP_STRIP, STEP_ACCENTS, STEP_PREPEND, STEP_REPLACE };

struct step {
    enum step_kind kind;
    bool compose, compatible; /* form */
    bool left, right;         /* strip */
    struct itera_pattern pattern;
    char *content; /* prepend, replace */
    size_t length;
};

struct buffer {
    char *bytes;
    size_t length, capacity;
};

struct itera_normalizer {
    struct step steps[MAX_STEPS];
    size_t count;
    struct buffer buffers[2]; /* steps read one and write the other */
    utf8proc_int32_t *codes;
    size_t code_count, code_capacity;
    size_t limit; /* of this text */
};

/* ---- writing --------------------------------------------------------------------------------- */

static enum itera_status no_memory(size_t bytes)
{
    return itera_fail(ITERA_ERR_MEMORY, "encode: no memory for %zu bytes of text", bytes);
}

/* Room for `length` more bytes. */
static enum itera_status reserve(const struct itera_normalizer *n, struct buffer *b, size_t length)
{
    if (length > n->limit - b->length)
        return itera_fail(ITERA_ERR_LIMIT,
                          "encode: the tokenizer's normalizer makes a text more than %d times "
                          "longer",
                          LONGEST_BY_BYTE);
    size_t wanted = b->length + length;
    if (wanted <= b->capacity)
        return ITERA_OK;
    wanted += wanted / 2 + 64;
    char *bytes = realloc(b->bytes, wanted);
    if (!bytes)
        return no_memory(wanted);
    b->bytes = bytes;
    b->capacity = wanted;
    return ITERA_OK;
}

static enum itera_status put_bytes(const struct itera_normalizer *n, struct buffer *b,
                                   const char *bytes, size_t length)
{
    enum itera_status status = reserve(n, b, length);
    if (!status && length) {
        memcpy(b->bytes + b->length, bytes, length);
        b->length += length;
    }
    return status;
}

static enum itera_status put_code(const struct itera_normalizer *n, struct buffer *b, uint32_t code)
{
    char bytes[4];
    return put_bytes(n, b, bytes, itera_utf8_put(code, bytes));
}

/* ---- normal forms ---------------------------------------------------------------------------- */

static size_t ascii_length(const char *text, size_t length)
{
    size_t at = 0;
    while (at < length && !(text[at] & 0x80))
        at++;
    return at;
}

/* A run without ASCII but for its first character becomes code points, decomposed. */
static enum itera_status decompose(struct itera_normalizer *n, const struct step *step,
                                   const char *text, size_t length)
{
    utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    if (step->compatible)
        options |= UTF8PROC_COMPAT;
    n->code_count = 0;
    size_t used;
    for (size_t at = 0; at < length; at += used) {
        enum { MOST = 32 };
        if (n->code_count + MOST > n->code_capacity) {
            size_t capacity = n->code_capacity + n->code_capacity / 2 + 256;
            utf8proc_int32_t *codes = realloc(n->codes, capacity * sizeof *codes);
            if (!codes)
                return no_memory(capacity * sizeof *codes);
            n->codes = codes;
            n->code_capacity = capacity;
        }
        uint32_t code = 0;
        int bound = 0;
        itera_utf8_next(text + at, length - at, &code, &used);
        utf8proc_ssize_t count = 1;
        if (itera_unicode_newer(code) & ITERA_NEWER_FORM)
            n->codes[n->code_count] = (utf8proc_int32_t)code;
        else
            count = utf8proc_decompose_char((utf8proc_int32_t)code, n->codes + n->code_count, MOST,
                                            options, &bound);
        if (count < 0 || count > MOST)
            return itera_fail(ITERA_ERR_FORMAT, "encode: U+%04X cannot be normalized", code);
        n->code_count += (size_t)count;
    }
    return ITERA_OK;
}

static unsigned combining(utf8proc_int32_t code)
{
    const unsigned class = (unsigned)utf8proc_get_property(code)->combining_class;
    return class && itera_unicode_newer((uint32_t)code) & ITERA_NEWER_CLASS ? 0 : class;
}

/* Sorts marks by their combining class, equal ones staying in order. */
static enum itera_status sort_marks(utf8proc_int32_t *codes, size_t count)
{
    enum { FEW = 32, CLASSES = 256 };
    if (count <= FEW) {
        for (size_t i = 1; i < count; i++) {
            utf8proc_int32_t code = codes[i];
            size_t at = i;
            for (; at > 0 && combining(codes[at - 1]) > combining(code); at--)
                codes[at] = codes[at - 1];
            codes[at] = code;
        }
        return ITERA_OK;
    }
    size_t next[CLASSES + 1] = {0};
    utf8proc_int32_t *copy = malloc(count * sizeof *copy);
    if (!copy)
        return no_memory(count * sizeof *copy);
    memcpy(copy, codes, count * sizeof *copy);
    for (size_t i = 0; i < count; i++)
        next[(combining(copy[i]) & 255) + 1]++;
    for (size_t i = 1; i <= CLASSES; i++)
        next[i] += next[i - 1];
    for (size_t i = 0; i < count; i++)
        codes[next[combining(copy[i]) & 255]++] = copy[i];
    free(copy);
    return ITERA_OK;
}

static enum itera_status order_marks(struct itera_normalizer *n)
{
    enum itera_status status = ITERA_OK;
    for (size_t at = 0; at < n->code_count && !status; at++) {
        size_t end = at;
        while (end < n->code_count && combining(n->codes[end]))
            end++;
        if (end - at > 1)
            status = sort_marks(n->codes + at, end - at);
        at = end;
    }
    return status;
}

/* Composes what lies between characters that compose with nothing. */
static void compose(struct itera_normalizer *n)
{
    size_t length = 0;
    for (size_t at = 0, end; at < n->code_count; at = end) {
        for (end = at + 1; end < n->code_count; end++)
            if (itera_unicode_newer((uint32_t)n->codes[end]) & ITERA_NEWER_CLASS)
                break;
        utf8proc_ssize_t count = utf8proc_normalize_utf32(
            n->codes + at, (utf8proc_ssize_t)(end - at), UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        for (utf8proc_ssize_t i = 0; i < count; i++) /* never more than there were */
            n->codes[length++] = n->codes[at + (size_t)i];
    }
    n->code_count = length;
}

static enum itera_status make_form(struct itera_normalizer *n, const struct step *step,
                                   const struct buffer *in, struct buffer *out)
{
    enum itera_status status = ITERA_OK;
    size_t at = 0;
    while (at < in->length && !status) {
        /* The last ASCII character before others may combine with them. */
        size_t plain = ascii_length(in->bytes + at, in->length - at);
        plain -= plain > 0 && at + plain < in->length;
        status = put_bytes(n, out, in->bytes + at, plain);
        at += plain;
        if (status || at == in->length)
            break;
        size_t end = at + 1;
        while (end < in->length && in->bytes[end] & 0x80)
            end++;
        status = decompose(n, step, in->bytes + at, end - at);
        if (!status)
            status = order_marks(n);
        if (!status && step->compose)
            compose(n);
        for (size_t i = 0; i < n->code_count && !status; i++)
            status = put_code(n, out, (uint32_t)n->codes[i]);
        at = end;
    }
    return status;
}

/* ---- other steps ----------------------------------------------------------------------------- */

/* Character by character, as Rust's to_lowercase has it: without a look at the neighbours. */
static enum itera_status lowercase(const struct itera_normalizer *n, const struct buffer *in,
                                   struct buffer *out)
{
    enum itera_status status = ITERA_OK;
    size_t used;
    for (size_t at = 0; at < in->length && !status; at += used) {
        uint32_t code = 0;
        itera_utf8_next(in->bytes + at, in->length - at, &code, &used);
        if (code == 0x130) /* the one capital that becomes two characters */
            status = put_bytes(n, out, "i\xCC\x87", 3);
        else
            status = put_code(n, out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)code));
    }
    return status;
}

static enum itera_status drop_accents(const struct itera_normalizer *n, const struct buffer *in,
                                      struct buffer *out)
{
    enum itera_status status = ITERA_OK;
    size_t used;
    for (size_t at = 0; at < in->length && !status; at += used) {
        uint32_t code = 0;
        itera_utf8_next(in->bytes + at, in->length - at, &code, &used);
        if (!(itera_classes(code) & ITERA_CLASS_MARK) ||
            itera_unicode_newer(code) & ITERA_NEWER_MARK)
            status = put_bytes(n, out, in->bytes + at, used);
    }
    return status;
}

static enum itera_status strip(const struct itera_normalizer *n, const struct step *step,
                               const struct buffer *in, struct buffer *out)
{
    size_t first = 0, last = 0, used;
    bool seen = false;
    for (size_t at = 0; at < in->length; at += used) {
        uint32_t code = 0;
        itera_utf8_next(in->bytes + at, in->length - at, &code, &used);
        if (itera_classes(code) & ITERA_CLASS_SPACE)
            continue;
        first = seen ? first : at;
        last = at + used;
        seen = true;
    }
    if (!seen)
        return ITERA_OK;
    first = step->left ? first : 0;
    last = step->right ? last : in->length;
    return put_bytes(n, out, in->bytes + first, last - first);
}

struct replacing {
    const struct itera_normalizer *normalizer;
    const struct step *step;
    const struct buffer *in;
    struct buffer *out;
};

static enum itera_status replace_match(void *user, size_t start, size_t end, bool match)
{
    const struct replacing *r = user;
    if (match)
        return put_bytes(r->normalizer, r->out, r->step->content, r->step->length);
    return put_bytes(r->normalizer, r->out, r->in->bytes + start, end - start);
}

static enum itera_status run_step(struct itera_normalizer *n, const struct step *step,
                                  const struct buffer *in, struct buffer *out,
                                  struct itera_budget *budget)
{
    struct replacing replacing = {n, step, in, out};
    switch (step->kind) {
    case STEP_FORM:
        return make_form(n, step, in, out);
    case STEP_LOWERCASE:
        return lowercase(n, in, out);
    case STEP_STRIP:
        /* Stripping only on a side that has nothing to strip, and emptiness, are the same. */
        if (!step->left && !step->right)
            return put_bytes(n, out, in->bytes, in->length);
        return strip(n, step, in, out);
    case STEP_ACCENTS:
        return drop_accents(n, in, out);
    case STEP_PREPEND:
        if (in->length == 0)
            return ITERA_OK;
        enum itera_status status = put_bytes(n, out, step->content, step->length);
        return status ? status : put_bytes(n, out, in->bytes, in->length);
    case STEP_REPLACE:
        break;
    }
    return itera_find_matches(&step->pattern, in->bytes, in->length, budget, replace_match,
                              &replacing);
}

enum itera_status itera_normalize(struct itera_normalizer *n, const char *text, size_t length,
                                  struct itera_budget *budget, const char **out, size_t *out_length)
{
    /* The first step reads the text itself. */
    struct buffer source = {(char *)text, length, length};
    const struct buffer *in = &source;
    enum itera_status status = ITERA_OK;
    n->limit = LONGEST_BY_BYTE * length + LONGEST_BESIDES;
    bool ascii = ascii_length(text, length) == length;
    for (size_t i = 0; i < n->count && !status; i++) {
        if (n->steps[i].kind == STEP_FORM && ascii && in == &source)
            continue;
        struct buffer *to = in == &n->buffers[0] ? &n->buffers[1] : &n->buffers[0];
        to->length = 0;
        status = itera_budget_take(budget, in->length);
        if (!status)
            status = run_step(n, &n->steps[i], in, to, budget);
        in = to;
    }
    *out = in->bytes;
    *out_length = in->length;
    return status;
}

/* ---- reading --------------------------------------------------------------------------------- */

static enum itera_status read_text(const json_t *json, const char *name, const char *key,
                                   struct step *step)
{
    const json_t *text = json_object_get(json, key);
    if (!json_is_string(text))
        return itera_fail(ITERA_ERR_FORMAT, "%s: \"%s\" of a normalizer is not a text", name, key);
    step->length = json_string_length(text);
    step->content = malloc(step->length + 1);
    if (!step->content)
        return no_memory(step->length);
    memcpy(step->content, json_string_value(text), step->length);
    return ITERA_OK;
}

static enum itera_status read_step(const json_t *json, const char *name, struct itera_normalizer *n)
{
    const char *type = json_string_value(json_object_get(json, "type"));
    enum itera_status status = ITERA_OK;
    if (!type)
        return itera_fail(ITERA_ERR_UNSUPPORTED, "%s: a normalizer without \"type\"", name);
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(json, "normalizers");
        if (!json_is_array(list))
            return itera_fail(ITERA_ERR_FORMAT, "%s: a Sequence without \"normalizers\"", name);
        for (size_t i = 0; i < json_array_size(list) && !status; i++)
            status = read_step(json_array_get(list, i), name, n);
        return status;
    }
    if (n->count == MAX_STEPS)
        return itera_fail(ITERA_ERR_LIMIT, "%s: more than %d normalizers", name, MAX_STEPS);
    struct step *step = &n->steps[n->count++];
    if (strncmp(type, "NF", 2) == 0 && strlen(type) - 2 <= 2) {
        step->kind = STEP_FORM;
        step->compatible = type[2] == 'K';
        const char *form = type + 2 + step->compatible;
        step->compose = *form == 'C';
        if (strcmp(form, "C") == 0 || strcmp(form, "D") == 0)
            return ITERA_OK;
    } else if (strcmp(type, "Lowercase") == 0) {
        step->kind = STEP_LOWERCASE;
        return ITERA_OK;
    } else if (strcmp(type, "Strip") == 0) {
        step->kind = STEP_STRIP;
        step->left = json_is_true(json_object_get(json, "strip_left"));
        step->right = json_is_true(json_object_get(json, "strip_right"));
        return ITERA_OK;
    } else if (strcmp(type, "StripAccents") == 0) {
        step->kind = STEP_ACCENTS;
        return ITERA_OK;
    } else if (strcmp(type, "Prepend") == 0) {
        step->kind = STEP_PREPEND;
        return read_text(json, name, "prepend", step);
    } else if (strcmp(type, "Replace") == 0) {
        step->kind = STEP_REPLACE;
        status = itera_pattern_read(json_object_get(json, "pattern"), name, &step->pattern);
        return status ? status : read_text(json, name, "content", step);
    }
    return itera_fail(ITERA_ERR_UNSUPPORTED,
                      "%s: normalizer \"%.40s\"; known are NFC, NFD, NFKC, NFKD, Lowercase, Strip, "
                      "StripAccents, Prepend, Replace and Sequence",
                      name, type);
}

enum itera_status itera_normalizer_create(const json_t *json, const char *name,
                                          struct itera_normalizer **out)
{
    *out = NULL;
    if (!json || json_is_null(json))
        return ITERA_OK;
    struct itera_normalizer *n = calloc(1, sizeof *n);
    if (!n)
        return itera_fail(ITERA_ERR_MEMORY, "%s: no memory for the normalizer", name);
    enum itera_status status = read_step(json, name, n);
    if (status)
        itera_normalizer_destroy(&n);
    *out = n;
    return status;
}

void itera_normalizer_destroy(struct itera_normalizer **normalizer)
{
    if (!normalizer || !*normalizer)
        return;
    struct itera_normalizer *n = *normalizer;
    for (size_t i = 0; i < n->count; i++) {
        itera_pattern_free(&n->steps[i].pattern);
        free(n->steps[i].content);
    }
    for (int i = 0; i < 2; i++)
        free(n->buffers[i].bytes);
    free(n->codes);
    free(n);
    *normalizer = NULL;
}
