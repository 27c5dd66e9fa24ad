#include "report/report.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/output.h"

/* cmake/report.cmake: Chart.js, or "" where it was not there when this was built; report.css and
 * report.js. */
extern const char report_script[], report_style[], report_setup[];

enum { MAX_COLUMNS = 24, MAX_SECTIONS = 32, TALL = 16 };

struct report {
    FILE *body; /* NULL: no memory */
    char *text;
    size_t size;
    char *title, *subtitle;
    int charts, embeds;
    char section[MAX_SECTIONS][64];
    int sections;
    /* The table that is being written. */
    struct report_column column[MAX_COLUMNS];
    int columns, cell;
};

/* Text as HTML. */
static void put_text(FILE *out, const char *text)
{
    for (; *text; text++) {
        switch (*text) {
        case '&':
            fputs("&amp;", out);
            break;
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        default:
            fputc(*text, out);
        }
    }
}

static void put_element(FILE *out, const char *name, const char *text)
{
    fprintf(out, "<%s>", name);
    put_text(out, text);
    fprintf(out, "</%s>\n", name);
}

/* JSON that may stand in a script: "</script>" or "<!--" in one of its strings must not end it. */
static void put_json(FILE *out, const json_t *root)
{
    char *text = json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(9));
    for (const char *c = text; c && *c; c++) {
        if (*c == '<')
            fputs("\\u003c", out);
        else
            fputc(*c, out);
    }
    free(text);
}

struct report *report_create(const char *title, const char *subtitle)
{
    struct report *report = calloc(1, sizeof *report);
    if (!report)
        return NULL;
    report->title = strdup(title);
    report->subtitle = strdup(subtitle);
    if (report->title && report->subtitle)
        report->body = open_memstream(&report->text, &report->size);
    return report;
}

void report_destroy(struct report **report)
{
    struct report *r = *report;
    if (!r)
        return;
    if (r->body)
        fclose(r->body);
    free(r->text);
    free(r->title);
    free(r->subtitle);
    free(r);
    *report = NULL;
}

static FILE *body(struct report *report)
{
    return report ? report->body : NULL;
}

void report_heading(struct report *report, const char *text)
{
    if (!body(report))
        return;
    int n = report->sections;
    if (n < MAX_SECTIONS)
        snprintf(report->section[report->sections++], sizeof report->section[0], "%s", text);
    fprintf(report->body, "<h2 id=\"section%d\">", n);
    put_text(report->body, text);
    fputs("</h2>\n", report->body);
}

void report_paragraph(struct report *report, const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, format);
    if (body(report) && vasprintf(&text, format, args) >= 0) {
        put_element(report->body, "p", text);
        free(text);
    }
    va_end(args);
}

void report_notes(struct report *report, const char *title, const char *const *notes, int n)
{
    if (!body(report) || !n)
        return;
    fputs("<section class=\"notes\">", report->body);
    put_element(report->body, "h2", title);
    fputs("<ul>\n", report->body);
    for (int i = 0; i < n; i++)
        put_element(report->body, "li", notes[i]);
    fputs("</ul></section>\n", report->body);
}

void report_cards_begin(struct report *report)
{
    if (body(report))
        fputs("<div class=\"cards\">\n", report->body);
}

void report_card(struct report *report, const char *value, const char *unit, const char *text)
{
    if (!body(report))
        return;
    fputs("<div class=\"card\"><b>", report->body);
    put_text(report->body, value);
    fputs(" <span>", report->body);
    put_text(report->body, unit);
    fputs("</span></b>", report->body);
    put_element(report->body, "small", text);
    fputs("</div>\n", report->body);
}

void report_cards_end(struct report *report)
{
    if (body(report))
        fputs("</div>\n", report->body);
}

void report_columns_begin(struct report *report)
{
    if (body(report))
        fputs("<div class=\"columns\">\n", report->body);
}

void report_columns_end(struct report *report)
{
    if (body(report))
        fputs("</div>\n", report->body);
}

/* ---- tables ---------------------------------------------------------------------------------- */

void report_table_begin(struct report *report, const char *caption, const char *list,
                        const struct report_column *columns, int n, int rows)
{
    if (!body(report))
        return;
    FILE *out = report->body;
    report->columns = n < MAX_COLUMNS ? n : MAX_COLUMNS;
    memcpy(report->column, columns, (size_t)report->columns * sizeof *columns);
    /* The frame scrolls on narrow screens; it can be reached by keyboard. */
    fprintf(out, "<div class=\"frame%s\" tabindex=\"0\" role=\"region\" aria-label=\"",
            rows > TALL ? " tall" : "");
    put_text(out, caption);
    fputs("\"><table", out);
    if (list)
        fprintf(out, " data-list=\"%s\"", list);
    fputs(">\n<caption>", out);
    put_element(out, "span", caption); /* stays in sight while the table scrolls */
    fputs("</caption><thead><tr>", out);
    for (int c = 0; c < report->columns; c++) {
        fprintf(out, "<th scope=\"col\"%s", columns[c].align == 'r' ? " class=\"r\"" : "");
        if (columns[c].key)
            fprintf(out, " data-key=\"%s\"", columns[c].key);
        fputc('>', out);
        put_text(out, columns[c].title);
        fputs("</th>", out);
    }
    fputs("</tr></thead>\n<tbody>", out);
    report->cell = -1;
}

void report_row(struct report *report, int id)
{
    if (!body(report))
        return;
    fputs(report->cell < 0 ? "\n<tr" : "</tr>\n<tr", report->body);
    if (id >= 0)
        fprintf(report->body, " data-item=\"%d\"", id);
    fputc('>', report->body);
    report->cell = 0;
}

/* value: NaN for none. news: -1, 0, 1. */
static void put_cell(struct report *report, const char *text, double value, int news)
{
    if (report->cell >= report->columns)
        return;
    FILE *out = report->body;
    char align = report->column[report->cell].align;
    const char *tag = report->cell ? "td" : "th";
    fprintf(out, "<%s%s", tag, report->cell ? "" : " scope=\"row\"");
    fprintf(out, " class=\"%s%s\"",
            align == 'r'   ? "r"
            : align == 'w' ? "long"
                           : "",
            news > 0   ? " good"
            : news < 0 ? " bad"
                       : "");
    if (isfinite(value))
        fprintf(out, " data-value=\"%.9g\"", value);
    fputc('>', out);
    put_text(out, text);
    fprintf(out, "</%s>", tag);
    report->cell++;
}

void report_cell(struct report *report, const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, format);
    if (body(report) && vasprintf(&text, format, args) >= 0) {
        put_cell(report, text, (double)NAN, 0);
        free(text);
    }
    va_end(args);
}

void report_number(struct report *report, double value, int digits)
{
    char text[64] = "\xe2\x80\x93"; /* a dash */
    if (!body(report))
        return;
    /* Whole thousands are easier to read than 1.234e+04. */
    if (isfinite(value) && fabs(value) >= 1000 && fabs(value) < 1e15)
        output_grouped((int64_t)llround(value), text, sizeof text);
    else if (isfinite(value))
        snprintf(text, sizeof text, "%.*g", digits, value);
    put_cell(report, text, value, 0);
}

void report_word(struct report *report, int news, const char *text)
{
    if (body(report))
        put_cell(report, text, (double)NAN, news);
}

void report_table_end(struct report *report)
{
    if (body(report))
        fprintf(report->body, "%s\n</tbody></table></div>\n", report->cell < 0 ? "" : "</tr>");
}

void report_table(struct report *report, const char *caption, int columns,
                  const char *const *titles, const char *align, int rows, const char *const *cells)
{
    struct report_column column[MAX_COLUMNS] = {0};
    for (int c = 0; c < columns && c < MAX_COLUMNS; c++)
        column[c] = (struct report_column){titles[c], NULL, align[c]};
    report_table_begin(report, caption, NULL, column, columns, rows);
    for (int r = 0; r < rows; r++) {
        report_row(report, -1);
        for (int c = 0; c < columns; c++)
            report_word(report, 0, cells[r * columns + c]);
    }
    report_table_end(report);
}

/* ---- plots and files ------------------------------------------------------------------------- */

void report_chart(struct report *report, const char *caption, json_t *chart)
{
    if (body(report) && chart && report_script[0]) {
        FILE *out = report->body;
        const json_t *height = json_object_get(chart, "height");
        fputs("<figure><div class=\"plot\"", out);
        if (height)
            fprintf(out, " style=\"height:%.1frem\"", json_number_value(height));
        fprintf(out, "><canvas id=\"chart%d\" role=\"img\" aria-label=\"", report->charts);
        put_text(out, caption);
        fprintf(out,
                "\"></canvas></div>\n<script type=\"application/json\" data-chart=\"chart%d\">",
                report->charts++);
        put_json(out, chart);
        fputs("</script>\n", out);
        put_element(out, "figcaption", caption);
        fputs("</figure>\n", out);
    }
    json_decref(chart);
}

void report_embed(struct report *report, const char *id, const char *file, const json_t *root)
{
    if (!body(report))
        return;
    FILE *out = report->body;
    fprintf(out, "<p class=\"screen\"><a id=\"link%d\" download=\"", report->embeds);
    put_text(out, file);
    fputs("\">", out);
    put_text(out, file);
    fputs("</a></p>\n<script type=\"application/json\" id=\"", out);
    put_text(out, id);
    fprintf(out, "\" data-link=\"link%d\">", report->embeds++);
    put_json(out, root);
    fputs("</script>\n", out);
}

static void put_contents(FILE *out, const struct report *report)
{
    if (report->sections <= 3)
        return;
    fputs("<nav class=\"screen\" aria-label=\"Sections\">", out);
    for (int i = 0; i < report->sections; i++) {
        fprintf(out, "<a href=\"#section%d\">", i);
        put_text(out, report->section[i]);
        fputs("</a>\n", out);
    }
    fputs("</nav>\n", out);
}

int report_write(const struct report *report, const char *file)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out =
        report && report->body && fflush(report->body) == 0 ? open_memstream(&text, &size) : NULL;
    if (out) {
        fputs("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
              "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
              out);
        put_element(out, "title", report->title);
        /* Without it browsers ask for a favicon, and log that there is none. */
        fprintf(out, "<link rel=\"icon\" href=\"data:,\">\n<style>\n%s</style>\n</head>\n<body>\n",
                report_style);
        put_element(out, "h1", report->title);
        fputs("<p class=\"sub\">", out);
        put_text(out, report->subtitle);
        fputs("</p>\n", out);
        put_contents(out, report);
        fputs(report->text, out);
        if (report->charts)
            fprintf(out, "<script>%s</script>\n", report_script);
        if (report->charts || report->embeds)
            fprintf(out, "<script>\n%s</script>\n", report_setup);
        fputs("</body>\n</html>\n", out);
    }
    int code = EXIT_FAILED;
    if (out && fclose(out) == 0)
        code = output_text(file, text);
    else
        command_error("%s: no memory to write the report", file);
    free(text);
    return code;
}
