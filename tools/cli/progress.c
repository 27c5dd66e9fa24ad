#include "cli/progress.h"

#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cli/terminal.h"

/* A terminal is redrawn this often; without one, a line comes at these distances. */
static const double redraw_seconds = 0.1, line_seconds = 5.0;

static struct {
    bool active, terminal, drawn, dirty;
    char what[32], unit[16], note[128];
    double total, done;
    double began, begin_done; /* of the whole run */
    double last_draw;
    double mark, mark_done; /* of the last rate sample */
    double rate;            /* recent units per second */
} bar;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

double progress_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int terminal_width(void)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return 80;
}

/* "950", "12.3k", "1.24M" */
static const char *short_number(double value, char *out, size_t size)
{
    static const char suffix[] = {'\0', 'k', 'M', 'G', 'T'};
    int i = 0;
    while (value >= 999.5 && i < 4) {
        value /= 1000;
        i++;
    }
    int decimals = value < 10 && (i > 0 || value != floor(value)) ? 2
                   : value < 100 && i > 0                         ? 1
                                                                  : 0;
    snprintf(out, size, "%.*f%c", decimals, value, suffix[i]);
    return out;
}

/* "12s", "3m05s", "2h10m" */
static const char *short_time(double seconds, char *out, size_t size)
{
    if (!(seconds >= 0 && seconds < 3600.0 * 10000))
        snprintf(out, size, "?");
    else if (seconds < 60)
        snprintf(out, size, "%.0fs", seconds);
    else if (seconds < 3600)
        snprintf(out, size, "%dm%02ds", (int)seconds / 60, (int)seconds % 60);
    else
        snprintf(out, size, "%dh%02dm", (int)seconds / 3600, (int)seconds / 60 % 60);
    return out;
}

/* The rate of the last seconds, smoothed; the average since the start until there is one. */
static void update_rate(double t)
{
    double span = t - bar.mark;
    if (span < 0.5)
        return;
    double sample = (bar.done - bar.mark_done) / span;
    double weight = bar.rate > 0 ? 1 - exp(-span / 5) : 1;
    bar.rate += weight * (sample - bar.rate);
    bar.mark = t;
    bar.mark_done = bar.done;
}

/* Everything but the bar itself: "  41%  12.3k tok/s  3m05s left  loss 2.345". */
static void describe(double t, char *out, size_t size)
{
    char rate_text[32], time_text[32], done_text[32];
    double average = t > bar.began ? (bar.done - bar.begin_done) / (t - bar.began) : 0;
    double rate = bar.rate > 0 ? bar.rate : average;
    short_number(rate, rate_text, sizeof rate_text);
    if (bar.total > 0) {
        double share = fmin(1, fmax(0, bar.done / bar.total));
        bool over = bar.done >= bar.total;
        /* By the average: work of which a share takes long would otherwise be said to take days. */
        short_time(over ? t - bar.began : (bar.total - bar.done) / average, time_text,
                   sizeof time_text);
        char speed[64] = "";
        if (strcmp(bar.unit, "%") != 0)
            snprintf(speed, sizeof speed, "  %s %s/s", rate_text, bar.unit);
        snprintf(out, size, "%3d%%%s  %s %s%s%s", (int)(share * 100), speed, time_text,
                 over ? "in all" : "left", bar.note[0] ? "  " : "", bar.note);
    } else {
        short_time(t - bar.began, time_text, sizeof time_text);
        snprintf(out, size, "%s %s  %s %s/s  %s%s%s",
                 short_number(bar.done, done_text, sizeof done_text), bar.unit, rate_text, bar.unit,
                 time_text, bar.note[0] ? "  " : "", bar.note);
    }
}

static void draw(double t)
{
    char text[320], shown[TERMINAL_ROOM(400)];
    describe(t, text, sizeof text);
    bar.last_draw = t;
    bar.dirty = false;
    if (!bar.terminal) {
        fprintf(stderr, "%s: %s\n", bar.what, text);
        return;
    }
    if (!bar.drawn)
        terminal_end_line();
    int width = terminal_width() - 1;
    int room = width - (int)strlen(bar.what) - (int)strlen(text) - 6;
    if (room > 40)
        room = 40;
    if (bar.total > 0 && room >= 8) {
        int full = (int)(fmin(1, fmax(0, bar.done / bar.total)) * room);
        char cells[64];
        memset(cells, '.', sizeof cells);
        memset(cells, '=', (size_t)full);
        if (full < room && full > 0)
            cells[full - 1] = '>';
        terminal_harmless(text, strlen(text), false, shown);
        fprintf(stderr, "\r%s [%.*s] %s\033[K", bar.what, room, cells, shown);
    } else {
        char line[400];
        snprintf(line, sizeof line, "%s %s", bar.what, text);
        size_t length = strlen(line), most = width > 0 ? (size_t)width : 0;
        terminal_harmless(line, length < most ? length : most, false, shown);
        fprintf(stderr, "\r%s\033[K", shown);
    }
    bar.drawn = true;
    fflush(stderr);
}

void progress_start(const char *what, const char *unit, double total)
{
    const char *term = getenv("TERM");
    pthread_mutex_lock(&lock);
    memset(&bar, 0, sizeof bar);
    snprintf(bar.what, sizeof bar.what, "%s", what);
    snprintf(bar.unit, sizeof bar.unit, "%s", unit);
    bar.terminal = isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
    bar.total = total;
    bar.began = bar.mark = bar.last_draw = progress_seconds();
    bar.active = true;
    pthread_mutex_unlock(&lock);
}

void progress_begin_at(double done)
{
    pthread_mutex_lock(&lock);
    bar.done = bar.begin_done = bar.mark_done = done;
    pthread_mutex_unlock(&lock);
}

void progress_set_total(double total)
{
    pthread_mutex_lock(&lock);
    bar.total = total;
    pthread_mutex_unlock(&lock);
}

void progress_update(double done, const char *note, ...)
{
    pthread_mutex_lock(&lock);
    if (bar.active) {
        bar.done = done;
        bar.dirty = true;
        if (note) {
            va_list args;
            va_start(args, note);
            vsnprintf(bar.note, sizeof bar.note, note, args);
            va_end(args);
        }
        double t = progress_seconds();
        update_rate(t);
        if (t - bar.last_draw >= (bar.terminal ? redraw_seconds : line_seconds))
            draw(t);
    }
    pthread_mutex_unlock(&lock);
}

void progress_finish(int keep)
{
    pthread_mutex_lock(&lock);
    if (bar.active) {
        if (keep) {
            bar.rate = 0; /* the last line tells the average */
            if (bar.terminal || bar.dirty)
                draw(progress_seconds());
            if (bar.terminal)
                fputc('\n', stderr);
        } else if (bar.terminal && bar.drawn) {
            fputs("\r\033[K", stderr);
        }
        fflush(stderr);
        bar.active = false;
    }
    pthread_mutex_unlock(&lock);
}

enum { MESSAGE = 4096 };

/* A message is one line, wherever it goes. */
static void blank_newlines(char *text)
{
    for (char *p = text; *p; p++)
        if (*p == '\n' || *p == '\r')
            *p = '?';
}

/* Messages that wait, each ended by a 0. */
static struct {
    bool on;
    char *text;
    size_t used;
} held;

/* False without memory: the message is better in the way than lost. */
static bool keep_message(const char *text)
{
    const size_t length = strlen(text) + 1;
    char *grown = held.on ? realloc(held.text, held.used + length) : NULL;
    if (!grown)
        return false;
    memcpy(grown + held.used, text, length);
    held.text = grown;
    held.used += length;
    return true;
}

static void print_message(char *text)
{
    if (bar.active && bar.terminal && bar.drawn)
        fputs("\r\033[K", stderr);
    if (terminal_messages()) {
        char shown[TERMINAL_ROOM(MESSAGE)];
        terminal_end_line();
        terminal_harmless(text, strlen(text), false, shown);
        fprintf(stderr, "%s\n", shown);
    } else {
        blank_newlines(text);
        fprintf(stderr, "%s\n", text);
    }
    if (bar.active && bar.terminal && bar.drawn)
        draw(progress_seconds());
}

void progress_line(const char *format, ...)
{
    char text[MESSAGE];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    pthread_mutex_lock(&lock);
    if (!keep_message(text))
        print_message(text);
    pthread_mutex_unlock(&lock);
}

void progress_hold(bool hold)
{
    pthread_mutex_lock(&lock);
    held.on = hold;
    for (size_t at = 0; !hold && at < held.used; at += strlen(held.text + at) + 1)
        print_message(held.text + at);
    if (!hold) {
        free(held.text);
        held.text = NULL;
        held.used = 0;
    }
    pthread_mutex_unlock(&lock);
}
