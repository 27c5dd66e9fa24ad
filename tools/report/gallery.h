/* The gallery of results, docs/results.md. */
#ifndef ITERA_TOOLS_GALLERY_H
#define ITERA_TOOLS_GALLERY_H

#include <jansson.h>

/* n checked results as Markdown, to `file` or stdout (NULL, "-"). */
int gallery_markdown(const json_t *const *results, const char *const *names, int n,
                     const char *file);

#endif
