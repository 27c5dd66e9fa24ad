#include "text/regex.h"

#include <limits.h>
#include <oniguruma.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"

enum {
    LONGEST_PATTERN = 4096,
    MOST_REPEATS = 100000,  /* the product of all counts of an expression */
    MATCH_PLACES = 4 << 20, /* to which a match may return, of some 50 bytes each */
    /* A match first may return this often; where that is too little it is tried again with four
     * times as many, and what was tried in vain is taken from the budget. */
    FIRST_RETRIES = 1024,
};

struct itera_regex {
    OnigRegex code;
    OnigRegion *region;
    OnigMatchParam *param;
};

/* ---- budgets --------------------------------------------------------------------------------- */

struct itera_budget itera_budget_of(size_t length)
{
    return (struct itera_budget){ITERA_STEPS_PER_TEXT + (uint64_t)ITERA_STEPS_PER_BYTE * length};
}

enum itera_status itera_budget_take(struct itera_budget *budget, uint64_t steps)
{
    if (steps < budget->steps) {
        budget->steps -= steps;
        return ITERA_OK;
    }
    budget->steps = 0;
    return itera_fail(ITERA_ERR_LIMIT,
                      "encode: the tokenizer's expressions take too long for this text (more than "
                      "%u steps per byte); use a tokenizer with simpler ones, or other text",
                      ITERA_STEPS_PER_BYTE);
}

/* Oniguruma bounds how often a match returns to an earlier place, not how far it reads in between.
 * It asks the encoding for the length of every character that it passes, so that an encoding that
 * counts meters that as well: once all steps are used up, every character reaches to the end of the
 * text, and matching has nowhere to go. */
static _Thread_local uint64_t steps_left;
static _Thread_local const OnigUChar *text_end;
static int (*length_of)(const OnigUChar *);
static OnigEncodingType metered_utf8;

static int metered_length(const OnigUChar *at)
{
    if (steps_left) {
        steps_left--;
        return length_of(at);
    }
    return at < text_end ? (int)(text_end - at) : 1;
}

/* ---- classes --------------------------------------------------------------------------------- */

enum { CODES = 0x110000 };
static unsigned char classes[CODES];
static int start_error;
static pthread_once_t started = PTHREAD_ONCE_INIT;

static void add_class(const char *property, enum itera_class class)
{
    OnigUChar name[32];
    size_t length = strlen(property);
    memcpy(name, property, length);
    OnigEncoding utf8 = ONIG_ENCODING_UTF8;
    const OnigCodePoint *ranges = NULL;
    OnigCodePoint single_byte;
    int type = utf8->property_name_to_ctype(utf8, name, name + length);
    if (type < 0)
        start_error = type;
    else
        type = utf8->get_ctype_code_range((OnigCtype)type, &single_byte, &ranges);
    for (OnigCodePoint i = 0; ranges && i < ranges[0]; i++)
        for (OnigCodePoint c = ranges[1 + 2 * i]; c <= ranges[2 + 2 * i] && c < CODES; c++)
            classes[c] |= (unsigned char)class;
}

static void start(void)
{
    metered_utf8 = *ONIG_ENCODING_UTF8;
    length_of = metered_utf8.mbc_enc_len;
    metered_utf8.mbc_enc_len = metered_length;
    OnigEncoding encodings[] = {&metered_utf8};
    start_error = onig_initialize(encodings, 1);
    add_class("L", ITERA_CLASS_LETTER);
    add_class("N", ITERA_CLASS_NUMBER);
    add_class("White_Space", ITERA_CLASS_SPACE);
    static const char *const word[] = {"Alphabetic", "M", "Nd", "Pc", "Join_Control"};
    for (size_t i = 0; i < sizeof word / sizeof *word; i++)
        add_class(word[i], ITERA_CLASS_WORD);
    add_class("P", ITERA_CLASS_PUNCTUATION);
    add_class("M", ITERA_CLASS_MARK);
    for (const char *symbol = "$+<=>^`|~"; *symbol; symbol++)
        classes[(unsigned char)*symbol] |= ITERA_CLASS_PUNCTUATION;
}

const unsigned char *itera_class_table(void)
{
    pthread_once(&started, start);
    return classes;
}

unsigned itera_classes(uint32_t code)
{
    return code < CODES ? itera_class_table()[code] : 0;
}

/* ---- reading expressions --------------------------------------------------------------------- */

/* A walk over an expression, one element (a character, an escape, a class) or one of the characters
 * of its structure at a time. */
struct walk {
    const char *text;
    size_t length, at;
};

/* Past the class of characters at `at`, with those inside it. */
static size_t class_end(const char *text, size_t length, size_t at)
{
    size_t depth = 0;
    for (; at < length; at++) {
        if (text[at] == '\\') {
            at++;
        } else if (text[at] == '[') {
            depth++;
            /* A bracket that comes first is a character. */
            at += at + 1 < length && text[at + 1] == '^';
            at += at + 1 < length && text[at + 1] == ']';
        } else if (text[at] == ']' && --depth == 0) {
            return at + 1;
        }
    }
    return length;
}

/* Past the element at `at`, which is no parenthesis, bar or quantifier. */
static size_t element_end(const char *text, size_t length, size_t at)
{
    if (text[at] == '[')
        return class_end(text, length, at);
    if (text[at] == '\\' && at + 1 < length) {
        bool braces = at + 2 < length && text[at + 2] == '{' && strchr("pPxo", text[at + 1]);
        const char *end = braces ? memchr(text + at, '}', length - at) : NULL;
        return end ? (size_t)(end - text) + 1 : at + 2;
    }
    at++;
    while (at < length && ((unsigned char)text[at] & 0xC0) == 0x80)
        at++;
    return at;
}

/* The counts {n}, {n,}, {,m}, {n,m} at `at`: how many characters, or 0; the largest goes to *most.
 */
static size_t counts_end(const char *text, size_t length, size_t at, uint64_t *most)
{
    size_t from = at;
    uint64_t number = 0;
    *most = 1;
    if (text[at] != '{')
        return 0;
    for (at++; at < length && text[at] != '}'; at++) {
        if (text[at] == ',')
            number = 0;
        else if (text[at] >= '0' && text[at] <= '9')
            number = number < 1000000 ? number * 10 + (uint64_t)(text[at] - '0') : number;
        else
            return 0;
        *most = number > *most ? number : *most;
    }
    return at < length && at > from + 1 ? at + 1 - from : 0;
}

/* What an expression costs is bounded by its steps and by how often it returns, where it cannot go
 * on for long without either: not in loops of counts inside counts, nor in groups that call each
 * other; and comparing with what a group matched is a loop of its own. */
static enum itera_status check_pattern(const char *text, size_t length, const char *name)
{
    const char *refused = NULL;
    uint64_t repeats = 1, most;
    if (length > LONGEST_PATTERN)
        refused = "has more than 4096 bytes";
    else if (memchr(text, 0, length))
        refused = "contains a zero byte";
    for (size_t at = 0; at < length && !refused;) {
        size_t counts = counts_end(text, length, at, &most);
        if (counts) {
            repeats *= most;
            if (repeats > MOST_REPEATS)
                refused = "repeats too often (all counts multiplied are more than 100000)";
            at += counts;
            continue;
        }
        if (text[at] == '\\' && at + 1 < length) {
            char c = text[at + 1];
            if ((c >= '1' && c <= '9') || c == 'k' || c == 'g')
                refused = "refers to one of its groups";
        }
        if (text[at] == '(' && at + 2 < length &&
            (text[at + 1] == '*' || (text[at + 1] == '?' && strchr("{~(", text[at + 2]))))
            refused = "has a callout, a condition or an absent group";
        at = element_end(text, length, at);
    }
    return refused ? itera_fail(ITERA_ERR_UNSUPPORTED, "%s: the regular expression \"%.60s\" %s",
                                name, text, refused)
                   : ITERA_OK;
}

/* Past the group at `at`. */
static size_t group_end(const char *text, size_t length, size_t at)
{
    size_t depth = 0;
    while (at < length) {
        if (text[at] == '(')
            depth++;
        if (text[at] == ')' && --depth == 0)
            return at + 1;
        at = element_end(text, length, at);
    }
    return length;
}

enum { ELEMENTS = 512 };
struct element {
    size_t end; /* past its quantifier */
    char quantifier;
    bool simple; /* no group; its quantifier is greedy */
};

/* Marks where a + makes a quantifier possessive without changing any match. What is repeated at the
 * end of a whole alternative, with nothing behind it that could fail, is never given back; told so,
 * Oniguruma does not remember every character of a long word. */
static void mark_possessive(const struct element *elements, size_t count, bool *marks)
{
    while (count > 0) {
        const struct element *last = &elements[--count];
        if (last->quantifier != '*' && last->quantifier != '+' && last->quantifier != '?')
            return;
        if (last->simple && last->quantifier != '?')
            marks[last->end] = true;
        if (last->quantifier == '+')
            return;
    }
}

/* Writes the expression with its marks to `out`, which has room for twice its length. */
static size_t make_possessive(const char *text, size_t length, char *out)
{
    bool marks[LONGEST_PATTERN + 1] = {false};
    struct element elements[ELEMENTS];
    size_t count = 0, at = 0;
    bool readable = true;
    while (at < length && readable) {
        if (text[at] == '|') {
            mark_possessive(elements, count, marks);
            count = 0;
            at++;
            continue;
        }
        /* Options for the rest of the expression, as in (?x), change how it is read. */
        bool group = text[at] == '(';
        size_t end = group ? group_end(text, length, at) : element_end(text, length, at);
        struct element e = {end, 0, !group};
        uint64_t most;
        readable = count < ELEMENTS && text[at] != ')' && !(text[at] == '\\' && at + 1 == length);
        if (group && end - at > 2 && text[at + 1] == '?')
            readable = strchr(":=!<>im-", text[at + 2]) &&
                       !memchr(text + at, 'x', strcspn(text + at, ":=!<>)"));
        if (end < length && strchr("*+?", text[end])) {
            e.quantifier = text[end];
            e.end = end + 1;
        } else if (end < length && counts_end(text, length, end, &most)) {
            e.quantifier = '{';
            e.end = end + counts_end(text, length, end, &most);
        }
        /* A second quantifier: lazy, possessive, or a repetition of the repetition. */
        while (e.quantifier && e.end < length &&
               (strchr("*+?", text[e.end]) || counts_end(text, length, e.end, &most))) {
            size_t counts = counts_end(text, length, e.end, &most);
            e.end += counts ? counts : 1;
            e.quantifier = '{';
        }
        if (count < ELEMENTS)
            elements[count++] = e;
        at = e.end;
    }
    if (readable)
        mark_possessive(elements, count, marks);
    size_t written = 0;
    for (size_t i = 0; i <= length; i++) {
        if (readable && marks[i])
            out[written++] = '+';
        if (i < length)
            out[written++] = text[i];
    }
    return written;
}

/* ---- matching -------------------------------------------------------------------------------- */

static enum itera_status onig_failed(const char *name, int error, OnigErrorInfo *info)
{
    OnigUChar message[ONIG_MAX_ERROR_MESSAGE_LEN] = {0};
    if (error == ONIGERR_MEMORY)
        return itera_fail(ITERA_ERR_MEMORY, "%s: no memory for a regular expression", name);
    onig_error_code_to_str(message, error, info);
    return itera_fail(ITERA_ERR_FORMAT, "%s: a regular expression is wrong: %s", name,
                      (const char *)message);
}

enum itera_status itera_regex_create(const char *pattern, size_t length, const char *name,
                                     struct itera_regex **out)
{
    *out = NULL;
    pthread_once(&started, start);
    if (start_error)
        return onig_failed(name, start_error, NULL);
    enum itera_status status = check_pattern(pattern, length, name);
    if (status)
        return status;
    struct itera_regex *regex = calloc(1, sizeof *regex);
    if (!regex)
        return itera_fail(ITERA_ERR_MEMORY, "%s: no memory for a regular expression", name);
    char text[2 * LONGEST_PATTERN];
    size_t size = make_possessive(pattern, length, text);
    OnigErrorInfo info;
    /* Compiling asks for lengths as well, and has all the steps that it needs. */
    steps_left = UINT64_MAX;
    int error = onig_new(&regex->code, (const OnigUChar *)text, (const OnigUChar *)text + size,
                         ONIG_OPTION_NONE, &metered_utf8, ONIG_SYNTAX_DEFAULT, &info);
    if (error != ONIG_NORMAL) {
        regex->code = NULL;
        itera_regex_destroy(&regex);
        return onig_failed(name, error, &info);
    }
    regex->region = onig_region_new();
    regex->param = onig_new_match_param();
    if (!regex->region || !regex->param) {
        itera_regex_destroy(&regex);
        return itera_fail(ITERA_ERR_MEMORY, "%s: no memory for a regular expression", name);
    }
    onig_initialize_match_param(regex->param);
    onig_set_match_stack_limit_size_of_match_param(regex->param, MATCH_PLACES);
    *out = regex;
    return ITERA_OK;
}

void itera_regex_destroy(struct itera_regex **regex)
{
    if (!regex || !*regex)
        return;
    if ((*regex)->code)
        onig_free((*regex)->code);
    if ((*regex)->region)
        onig_region_free((*regex)->region, 1);
    if ((*regex)->param)
        onig_free_match_param((*regex)->param);
    free(*regex);
    *regex = NULL;
}

enum itera_status itera_regex_search(struct itera_regex *regex, const char *text, size_t length,
                                     size_t from, struct itera_budget *budget, bool *found,
                                     size_t *start_at, size_t *end_at)
{
    const OnigUChar *bytes = (const OnigUChar *)text;
    *found = false;
    if (length > INT_MAX)
        return itera_fail(ITERA_ERR_LIMIT,
                          "encode: a text of %zu bytes; regular expressions take %d at most",
                          length, INT_MAX);
    for (unsigned long retries = FIRST_RETRIES;; retries *= 4) {
        onig_set_retry_limit_in_match_of_match_param(regex->param, retries);
        onig_set_retry_limit_in_search_of_match_param(regex->param, retries);
        steps_left = budget->steps;
        text_end = bytes + length;
        int result =
            onig_search_with_param(regex->code, bytes, bytes + length, bytes + from, bytes + length,
                                   regex->region, ONIG_OPTION_NONE, regex->param);
        bool again = result == ONIGERR_RETRY_LIMIT_IN_MATCH_OVER ||
                     result == ONIGERR_RETRY_LIMIT_IN_SEARCH_OVER;
        enum itera_status status =
            itera_budget_take(budget, budget->steps - steps_left + (again ? retries : 0));
        if (status)
            return status;
        if (again)
            continue;
        if (result == ONIGERR_MATCH_STACK_LIMIT_OVER)
            return itera_fail(ITERA_ERR_LIMIT,
                              "encode: a piece of the text is too long for the tokenizer's "
                              "expressions (more than %d places to return to)",
                              MATCH_PLACES);
        if (result < 0 && result != ONIG_MISMATCH)
            return onig_failed("encode", result, NULL);
        *found = result >= 0;
        if (*found) {
            *start_at = (size_t)regex->region->beg[0];
            *end_at = (size_t)regex->region->end[0];
        }
        return ITERA_OK;
    }
}
