/* Progress on stderr: a bar with rate and time left on a terminal, a line every few seconds
 * otherwise. One at a time per process; messages go through progress_line, so that they do not run
 * into the bar. Updating is cheap enough for every step of a loop, and safe from one thread while
 * others print lines. */
#ifndef ITERA_TOOLS_PROGRESS_H
#define ITERA_TOOLS_PROGRESS_H

#include <stdbool.h>

/* `what` says what is going on ("train"), `unit` what is counted ("tok"; shown as tok/s); total 0
 * means unknown. All strings are copied. */
void progress_start(const char *what, const char *unit, double total);
/* Work that counts as done before the rate's clock started (a resumed run). */
void progress_begin_at(double done);
/* The end has moved. */
void progress_set_total(double total);
/* done: so far, in units. note: shown beside the rate ("loss 2.345"), formatted; may be NULL. */
__attribute__((format(printf, 2, 3))) void progress_update(double done, const char *note, ...);
/* Ends it: the bar is drawn a last time, or erased when `keep` is 0. Without a start it does
 * nothing. */
void progress_finish(int keep);

/* A message line on stderr, above the bar; while messages are held, once they no longer are. */
__attribute__((format(printf, 1, 2))) void progress_line(const char *format, ...);

/* While a text is written that no message is to break. */
void progress_hold(bool hold);

/* Seconds since some moment in the past; never goes back. */
double progress_seconds(void);

#endif
