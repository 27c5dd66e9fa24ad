/* Text on a terminal: what models, files and users name or say cannot move the cursor, recolour or
 * retitle the window, or turn the direction of writing. Into pipes and files everything goes as it
 * is. */
#ifndef ITERA_TOOLS_TERMINAL_H
#define ITERA_TOOLS_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>

/* Copies text without what a terminal would obey: a control character as its picture (U+241B for
 * escape), other controls, those of bidirectional writing, and what is no UTF-8 as U+FFFD. Tabs
 * stay, and so do newlines where `lines`. out has TERMINAL_ROOM(size) bytes and ends with a NUL; the
 * length is returned. */
#define TERMINAL_ROOM(size) (3 * ((size_t)(size) + 3) + 1)
size_t terminal_harmless(const char *text, size_t size, bool lines, char *out);

/* Makes everything that is printed to stdout harmless when that is a terminal. To be called before
 * anything is. (Of the C libraries, glibc lets a program do so; with another nothing changes.) */
void terminal_guard_stdout(void);

/* Where stdout and stderr are terminals and text on stdout stands in the middle of a line: ends the
 * line, so that a message on stderr has one of its own. */
void terminal_end_line(void);

/* Whether stderr is a terminal. */
bool terminal_messages(void);

#endif
