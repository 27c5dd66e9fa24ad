/* Pre-tokenizers as Hugging Face's library has them.
 *
 * Each is a step that cuts, drops or rewrites what the step before made of a text. Byte-level BPE
 * spells bytes as printable letters (text/byte_letters.h), and what comes after a ByteLevel sees
 * those letters, not the text: digits among them are digits, for example. At the end the letters
 * are bytes again. */
#include "text/pretoken.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "text/byte_letters.h"
#include "text/matches.h"
#include "text/utf8.h"

enum { MAX_STEPS = 64 };

enum step_kind {
    STEP_PATTERN,    /* Split */
    STEP_CLASS,      /* each character of a class is a match */
    STEP_CHARACTER,  /* each of one character */
    STEP_WHITESPACE, /* runs of words and of other characters; spaces go */
    STEP_GPT2,       /* GPT-2's expression */
    STEP_PREFIX,     /* a space before what does not begin with one */
    STEP_LETTERS,    /* bytes to letters */
    STEP_BYTES,      /* letters to bytes */
};

enum behavior { REMOVED, ISOLATED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS };

struct step {
    enum step_kind kind;
    enum behavior behavior;
    bool invert;
    struct itera_pattern pattern;
    unsigned class;
    uint32_t character;
    char *room; /* what a rewriting step hands on */
    size_t capacity;
};

struct itera_pretokenizer {
    struct step steps[MAX_STEPS];
    size_t count;
    bool byte_level;
};

/* ---- GPT-2's expression ---------------------------------------------------------------------- */

/* A text and the table of classes: asked for once, as it is needed for every character. */
struct classed {
    const char *text;
    size_t length;
    const unsigned char *table;
};

static unsigned next_class(const struct classed *c, size_t at, size_t *used)
{
    uint32_t code = (unsigned char)c->text[at];
    *used = 1;
    if (code >= 0x80)
        itera_utf8_next(c->text + at, c->length - at, &code, used);
    return c->table[code] & (ITERA_CLASS_LETTER | ITERA_CLASS_NUMBER | ITERA_CLASS_SPACE);
}

/* Past the characters of a class from `at` on; *last: where the last of them is. */
static size_t run_end(const struct classed *c, size_t at, unsigned class, size_t *last)
{
    size_t used;
    while (at < c->length && next_class(c, at, &used) == class) {
        *last = at;
        at += used;
    }
    return at;
}

static size_t contraction(const char *text, size_t length)
{
    if (length < 2 || text[0] != '\'')
        return 0;
    if (strchr("stmd", text[1]) && text[1])
        return 2;
    if (length < 3)
        return 0;
    bool two = (text[1] == 'r' && text[2] == 'e') || (text[1] == 'v' && text[2] == 'e') ||
               (text[1] == 'l' && text[2] == 'l');
    return two ? 3 : 0;
}

/* Length of the piece at the start of a text that is not empty. */
static size_t gpt2_piece(const struct classed *c)
{
    size_t used, last = 0, at = contraction(c->text, c->length);
    if (at)
        return at;
    unsigned class = next_class(c, 0, &used);
    if (c->text[0] == ' ' && c->length > 1) {
        unsigned after = next_class(c, 1, &used);
        if (after != ITERA_CLASS_SPACE)
            return run_end(c, 1, after, &last);
    }
    size_t end = run_end(c, 0, class, &last);
    /* White space leaves its last character to what follows it, if it has another. */
    return class == ITERA_CLASS_SPACE && end < c->length && last > 0 ? last : end;
}

/* Pieces of valid UTF-8. */
static enum itera_status split_gpt2(const char *text, size_t length, itera_piece_fn *fn, void *user)
{
    struct classed c = {text, length, itera_class_table()};
    enum itera_status status = ITERA_OK;
    while (c.length > 0 && !status) {
        size_t used = gpt2_piece(&c);
        status = fn(user, c.text, used);
        c.text += used;
        c.length -= used;
    }
    return status;
}

enum itera_status itera_split_gpt2(const char *text, size_t length, itera_piece_fn *fn, void *user)
{
    enum itera_status status = ITERA_OK;
    while (length > 0 && !status) {
        size_t valid = itera_utf8_valid_prefix(text, length);
        status = valid ? split_gpt2(text, valid, fn, user) : fn(user, text, 1);
        text += valid ? valid : 1;
        length -= valid ? valid : 1;
    }
    return status;
}

/* ---- steps ----------------------------------------------------------------------------------- */

/* A text on its way through the steps. */
struct passage {
    struct itera_pretokenizer *pretokenizer;
    struct itera_budget *budget;
    itera_piece_fn *fn;
    void *user;
};

static enum itera_status run_step(const struct passage *passage, size_t index, const char *text,
                                  size_t length);

/* What a step cuts out of its text. A piece waits until it is known whether more belongs to it. */
struct cut {
    const struct passage *passage;
    size_t index; /* of the step */
    const char *text;
    size_t start, end;
    bool waiting, matched;
};

static enum itera_status hand_on(const struct cut *cut, size_t start, size_t end)
{
    if (start == end)
        return ITERA_OK;
    return run_step(cut->passage, cut->index + 1, cut->text + start, end - start);
}

static enum itera_status cut_match(void *user, size_t start, size_t end, bool match)
{
    struct cut *cut = user;
    const struct step *step = &cut->passage->pretokenizer->steps[cut->index];
    bool join = false;
    match ^= step->invert;
    switch (step->behavior) {
    case REMOVED:
        return match ? ITERA_OK : hand_on(cut, start, end);
    case ISOLATED:
        return hand_on(cut, start, end);
    case MERGED_WITH_PREVIOUS:
        join = match && !cut->matched;
        break;
    case MERGED_WITH_NEXT:
        join = cut->matched && !match;
        break;
    case CONTIGUOUS:
        join = match == cut->matched;
        break;
    }
    enum itera_status status = ITERA_OK;
    cut->matched = match;
    if (join && cut->waiting) {
        cut->end = end;
        return ITERA_OK;
    }
    if (cut->waiting)
        status = hand_on(cut, cut->start, cut->end);
    cut->waiting = true;
    cut->start = start;
    cut->end = end;
    return status;
}

/* Calls cut_match for each character that is a match, and for what is between them. */
static enum itera_status cut_characters(struct cut *cut, const struct step *step, size_t length)
{
    enum itera_status status = ITERA_OK;
    size_t done = 0, used;
    for (size_t at = 0; at < length && !status; at += used) {
        uint32_t code = 0;
        itera_utf8_next(cut->text + at, length - at, &code, &used);
        if (step->kind == STEP_CLASS ? !(itera_classes(code) & step->class)
                                     : code != step->character)
            continue;
        if (at > done)
            status = cut_match(cut, done, at, false);
        if (!status)
            status = cut_match(cut, at, at + used, true);
        done = at + used;
    }
    if (!status && done < length)
        status = cut_match(cut, done, length, false);
    return status;
}

static enum itera_status cut_words(const struct cut *cut, size_t length)
{
    enum itera_status status = ITERA_OK;
    unsigned before = ITERA_CLASS_SPACE;
    size_t start = 0, used;
    for (size_t at = 0; at <= length && !status; at += used) {
        uint32_t code = ' ';
        used = 1;
        if (at < length)
            itera_utf8_next(cut->text + at, length - at, &code, &used);
        unsigned class = itera_classes(code) & (ITERA_CLASS_WORD | ITERA_CLASS_SPACE);
        if (class == before && at < length)
            continue;
        if (before != ITERA_CLASS_SPACE)
            status = hand_on(cut, start, at);
        before = class;
        start = at;
    }
    return status;
}

static enum itera_status make_room(struct step *step, size_t length)
{
    if (length <= step->capacity)
        return ITERA_OK;
    char *room = realloc(step->room, length);
    if (!room)
        return itera_fail(ITERA_ERR_MEMORY, "encode: no memory for %zu bytes", length);
    step->room = room;
    step->capacity = length;
    return ITERA_OK;
}

/* Text that a step rewrites, as a whole. */
static enum itera_status rewrite(const struct passage *passage, size_t index, const char *text,
                                 size_t length)
{
    struct step *step = &passage->pretokenizer->steps[index];
    if (step->kind == STEP_PREFIX && text[0] == ' ')
        return run_step(passage, index + 1, text, length);
    enum itera_status status = make_room(step, 2 * length + 4);
    if (status)
        return status;
    size_t count = 0;
    if (step->kind == STEP_PREFIX) {
        step->room[0] = ' ';
        memcpy(step->room + 1, text, length);
        count = length + 1;
    } else if (step->kind == STEP_LETTERS) {
        for (size_t i = 0; i < length; i++)
            count += itera_utf8_put(itera_byte_letter((unsigned char)text[i]), step->room + count);
    } else {
        size_t used;
        for (size_t at = 0; at < length; at += used) {
            uint32_t code = 0;
            itera_utf8_next(text + at, length - at, &code, &used);
            step->room[count++] = (char)itera_letter_byte(code);
        }
    }
    return run_step(passage, index + 1, step->room, count);
}

struct relay {
    const struct passage *passage;
    size_t index;
};

static enum itera_status relay_piece(void *user, const char *piece, size_t length)
{
    const struct relay *relay = user;
    return run_step(relay->passage, relay->index, piece, length);
}

static enum itera_status run_step(const struct passage *passage, size_t index, const char *text,
                                  size_t length)
{
    const struct itera_pretokenizer *p = passage->pretokenizer;
    if (index == p->count)
        return passage->fn(passage->user, text, length);
    const struct step *step = &p->steps[index];
    struct cut cut = {.passage = passage, .index = index, .text = text};
    struct relay relay = {passage, index + 1};
    enum itera_status status = ITERA_OK;
    switch (step->kind) {
    case STEP_PATTERN:
        status = itera_find_matches(&step->pattern, text, length, passage->budget, cut_match, &cut);
        break;
    case STEP_CLASS:
    case STEP_CHARACTER:
        status = cut_characters(&cut, step, length);
        break;
    case STEP_WHITESPACE:
        return cut_words(&cut, length);
    case STEP_GPT2:
        return split_gpt2(text, length, relay_piece, &relay);
    case STEP_PREFIX:
    case STEP_LETTERS:
    case STEP_BYTES:
        return rewrite(passage, index, text, length);
    }
    return !status && cut.waiting ? hand_on(&cut, cut.start, cut.end) : status;
}

enum itera_status itera_pretokenize(struct itera_pretokenizer *pretokenizer, const char *text,
                                    size_t length, struct itera_budget *budget, itera_piece_fn *fn,
                                    void *user)
{
    const struct passage passage = {pretokenizer, budget, fn, user};
    return length ? run_step(&passage, 0, text, length) : ITERA_OK;
}

/* ---- reading --------------------------------------------------------------------------------- */

static enum itera_status refuse(const char *name, const char *type, const char *what)
{
    return itera_fail(ITERA_ERR_UNSUPPORTED, "%s: pre-tokenizer \"%.40s\"%s", name, type, what);
}

static struct step *add_step(struct itera_pretokenizer *p, enum step_kind kind,
                             enum behavior behavior)
{
    struct step *step = &p->steps[p->count++];
    *step = (struct step){.kind = kind, .behavior = behavior};
    return step;
}

static bool read_behavior(const json_t *json, enum behavior *behavior)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    const char *text = json_string_value(json);
    for (size_t i = 0; text && i < sizeof names / sizeof *names; i++) {
        if (strcmp(text, names[i]) == 0) {
            *behavior = (enum behavior)i;
            return true;
        }
    }
    return false;
}

static enum itera_status read_byte_level(const json_t *json, const char *name,
                                         struct itera_pretokenizer *p)
{
    const json_t *prefix = json_object_get(json, "add_prefix_space");
    const json_t *regex = json_object_get(json, "use_regex");
    if ((prefix && !json_is_boolean(prefix)) || (regex && !json_is_boolean(regex)))
        return itera_fail(ITERA_ERR_FORMAT, "%s: an option of ByteLevel is not a boolean", name);
    if (p->byte_level)
        return refuse(name, "ByteLevel", " twice: bytes are spelled once");
    p->byte_level = true;
    if (json_is_true(prefix))
        add_step(p, STEP_PREFIX, ISOLATED);
    if (!regex || json_is_true(regex))
        add_step(p, STEP_GPT2, ISOLATED);
    add_step(p, STEP_LETTERS, ISOLATED);
    return ITERA_OK;
}

static enum itera_status read_split(const json_t *json, const char *name,
                                    struct itera_pretokenizer *p)
{
    enum behavior behavior;
    const json_t *invert = json_object_get(json, "invert");
    if (!read_behavior(json_object_get(json, "behavior"), &behavior) ||
        (invert && !json_is_boolean(invert)))
        return itera_fail(ITERA_ERR_FORMAT, "%s: \"behavior\" or \"invert\" of Split is unknown",
                          name);
    struct step *step = add_step(p, STEP_PATTERN, behavior);
    step->invert = json_is_true(invert);
    return itera_pattern_read(json_object_get(json, "pattern"), name, &step->pattern);
}

static enum itera_status read_character(const json_t *json, const char *name,
                                        struct itera_pretokenizer *p)
{
    const json_t *text = json_object_get(json, "delimiter");
    size_t length = json_string_length(text), used = 0;
    uint32_t code = 0;
    if (length == 0 ||
        itera_utf8_next(json_string_value(text), length, &code, &used) != ITERA_UTF8_VALID ||
        used != length)
        return itera_fail(ITERA_ERR_FORMAT, "%s: \"delimiter\" is not one character", name);
    add_step(p, STEP_CHARACTER, REMOVED)->character = code;
    return ITERA_OK;
}

static enum itera_status read_step(const json_t *json, const char *name,
                                   struct itera_pretokenizer *p)
{
    const char *type = json_string_value(json_object_get(json, "type"));
    enum behavior behavior = ISOLATED;
    if (!type)
        return itera_fail(ITERA_ERR_UNSUPPORTED, "%s: a pre-tokenizer without \"type\"", name);
    if (p->count + 4 > MAX_STEPS)
        return itera_fail(ITERA_ERR_LIMIT, "%s: more than %d pre-tokenizers", name, MAX_STEPS - 4);
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(json, "pretokenizers");
        enum itera_status status = ITERA_OK;
        if (!json_is_array(list))
            return itera_fail(ITERA_ERR_FORMAT, "%s: a Sequence without \"pretokenizers\"", name);
        for (size_t i = 0; i < json_array_size(list) && !status; i++)
            status = read_step(json_array_get(list, i), name, p);
        return status;
    }
    if (strcmp(type, "ByteLevel") == 0)
        return read_byte_level(json, name, p);
    if (strcmp(type, "Split") == 0)
        return read_split(json, name, p);
    if (strcmp(type, "CharDelimiterSplit") == 0)
        return read_character(json, name, p);
    if (strcmp(type, "Digits") == 0) {
        bool each = json_is_true(json_object_get(json, "individual_digits"));
        add_step(p, STEP_CLASS, each ? ISOLATED : CONTIGUOUS)->class = ITERA_CLASS_NUMBER;
    } else if (strcmp(type, "Punctuation") == 0) {
        const json_t *given = json_object_get(json, "behavior");
        if (given && !read_behavior(given, &behavior))
            return refuse(name, type, " with an unknown \"behavior\"");
        add_step(p, STEP_CLASS, behavior)->class = ITERA_CLASS_PUNCTUATION;
    } else if (strcmp(type, "WhitespaceSplit") == 0) {
        add_step(p, STEP_CLASS, REMOVED)->class = ITERA_CLASS_SPACE;
    } else if (strcmp(type, "Whitespace") == 0) {
        add_step(p, STEP_WHITESPACE, REMOVED);
    } else {
        return refuse(name, type,
                      "; known are ByteLevel, Split, Digits, Punctuation, Whitespace, "
                      "WhitespaceSplit, CharDelimiterSplit and Sequence");
    }
    return ITERA_OK;
}

enum itera_status itera_pretokenizer_create(const json_t *json, const char *name,
                                            struct itera_pretokenizer **out)
{
    *out = NULL;
    struct itera_pretokenizer *p = calloc(1, sizeof *p);
    if (!p)
        return itera_fail(ITERA_ERR_MEMORY, "%s: no memory for the pre-tokenizer", name);
    enum itera_status status = ITERA_OK;
    if (json && !json_is_null(json))
        status = read_step(json, name, p);
    if (!status && !p->byte_level)
        status =
            itera_fail(ITERA_ERR_UNSUPPORTED,
                       "%s: no pre-tokenizer is ByteLevel; only byte-level BPE is supported", name);
    /* Where nothing sees the letters, none need be written. */
    if (!status && p->steps[p->count - 1].kind == STEP_LETTERS)
        p->count--;
    else if (!status)
        add_step(p, STEP_BYTES, ISOLATED);
    if (status)
        itera_pretokenizer_destroy(&p);
    *out = p;
    return status;
}

void itera_pretokenizer_destroy(struct itera_pretokenizer **pretokenizer)
{
    if (!pretokenizer || !*pretokenizer)
        return;
    for (size_t i = 0; i < (*pretokenizer)->count; i++) {
        itera_pattern_free(&(*pretokenizer)->steps[i].pattern);
        free((*pretokenizer)->steps[i].room);
    }
    free(*pretokenizer);
    *pretokenizer = NULL;
}

/* ---- words ----------------------------------------------------------------------------------- */

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_letter(char c)
{
    return (unsigned char)c >= 0x80 || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= '0' && c <= '9');
}

size_t itera_word_piece(const char *text, size_t length, bool punctuation)
{
    size_t at = text[0] == ' ' && length > 1 && (text[1] == '\n' || !is_space(text[1]));
    if (is_space(text[at]))
        return at + 1;
    if (!punctuation) {
        while (at < length && !is_space(text[at]))
            at++;
        return at;
    }
    if (!is_letter(text[at])) {
        char same = text[at];
        while (at < length && text[at] == same)
            at++;
        return at;
    }
    while (at < length && (is_letter(text[at]) || ((text[at] == '\'' || text[at] == '-') &&
                                                   at + 1 < length && is_letter(text[at + 1]))))
        at++;
    return at;
}
