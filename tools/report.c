#include "report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "output.h"

/* Chart.js, or "" where it was not there when this was built: cmake/report.cmake. */
extern const char report_script[];

struct report {
    FILE *body; /* NULL: no memory */
    char *text;
    size_t size;
    char *title, *subtitle;
    int charts;
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

void report_heading(struct report *report, const char *text)
{
    if (report && report->body)
        put_element(report->body, "h2", text);
}

void report_paragraph(struct report *report, const char *text)
{
    if (report && report->body)
        put_element(report->body, "p", text);
}

void report_table(struct report *report, const char *caption, int columns,
                  const char *const *titles, const char *align, int rows, const char *const *cells)
{
    if (!report || !report->body)
        return;
    FILE *out = report->body;
    /* The frame scrolls on narrow screens; it can be reached by keyboard. */
    fputs("<div class=\"frame\" tabindex=\"0\"><table>\n", out);
    put_element(out, "caption", caption);
    fputs("<thead><tr>", out);
    for (int c = 0; c < columns; c++) {
        fprintf(out, "<th scope=\"col\"%s>", align[c] == 'r' ? " class=\"r\"" : "");
        put_text(out, titles[c]);
        fputs("</th>", out);
    }
    fputs("</tr></thead>\n<tbody>\n", out);
    for (int r = 0; r < rows; r++) {
        fputs("<tr>", out);
        for (int c = 0; c < columns; c++) {
            const char *tag = c ? "td" : "th";
            fprintf(out, "<%s%s%s>", tag, c ? "" : " scope=\"row\"",
                    align[c] == 'r' ? " class=\"r\"" : "");
            put_text(out, cells[r * columns + c]);
            fprintf(out, "</%s>", tag);
        }
        fputs("</tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
}

void report_chart(struct report *report, const char *caption, json_t *chart)
{
    /* "</script>" in a label must not end the script: in JSON a slash may be escaped. */
    char *text = json_dumps(chart, JSON_COMPACT | JSON_ESCAPE_SLASH);
    json_decref(chart);
    if (report && report->body && text && report_script[0]) {
        FILE *out = report->body;
        fprintf(out,
                "<figure><div class=\"plot\"><canvas id=\"chart%d\" role=\"img\" aria-label=\"",
                report->charts);
        put_text(out, caption);
        fprintf(out,
                "\"></canvas></div>\n<script type=\"application/json\" data-chart=\"chart%d\">%s"
                "</script>\n",
                report->charts++, text);
        put_element(out, "figcaption", caption);
        fputs("</figure>\n", out);
    }
    free(text);
}

static const char STYLE[] =
    ":root{color-scheme:light dark;--ink:#1b2330;--soft:#5b6675;--line:#d5dae1;--paper:#fff;"
    "--band:#f4f6f8}\n"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#9aa5b4;--line:#39414d;"
    "--paper:#14181e;--band:#1c222a}}\n"
    "@media print{:root{--ink:#000;--soft:#444;--line:#bbb;--paper:#fff;--band:#fff}"
    "figure,table{break-inside:avoid}}\n"
    "body{margin:0 auto;max-width:70rem;padding:1.5rem 1rem 4rem;background:var(--paper);"
    "color:var(--ink);font:16px/1.5 system-ui,sans-serif}\n"
    "h1{font-size:1.6rem;margin:0}h2{font-size:1.2rem;margin:2rem 0 .5rem}"
    ".sub,figcaption,caption{color:var(--soft)}\n"
    ".frame{overflow-x:auto;margin:1rem 0}table{border-collapse:collapse;font-size:.9rem;"
    "font-variant-numeric:tabular-nums}\n"
    "caption{text-align:left;padding-bottom:.4rem}th,td{padding:.3rem .7rem;text-align:left;"
    "border-bottom:1px solid var(--line);white-space:nowrap}\n"
    "tbody th{font-weight:600}.r{text-align:right}tbody tr:nth-child(odd){background:var(--band)}\n"
    "figure{margin:1.5rem 0}.plot{position:relative;height:24rem;max-width:100%}"
    "@media(max-width:40rem){.plot{height:18rem}}\n";

/* Makes the charts, in the colours of the page, and again when those change (dark, print). The
 * palette is Okabe and Ito's, which colour-blind readers can tell apart. */
static const char SETUP[] =
    "(function(){\n"
    "const colours=['#0072b2','#d55e00','#009e73','#cc79a7','#e69f00','#56b4e9','#8a6d3b'];\n"
    "let charts=[];\n"
    "function bytes(v){const u=['B','kB','MB','GB'];let i=0;while(v>=1000&&i<3){v/=1000;i++}"
    "return +v.toPrecision(3)+' '+u[i]}\n"
    "function draw(){\n"
    "charts.forEach(c=>c.destroy());charts=[];\n"
    "const s=getComputedStyle(document.documentElement),"
    "ink=s.getPropertyValue('--ink'),line=s.getPropertyValue('--line');\n"
    "Chart.defaults.color=ink;Chart.defaults.borderColor=line;Chart.defaults.animation=false;"
    "Chart.defaults.maintainAspectRatio=false;\n"
    "document.querySelectorAll('script[data-chart]').forEach(e=>{\n"
    "const c=JSON.parse(e.textContent);\n"
    "c.data.datasets.forEach((d,i)=>{const k=colours[i%colours.length];d.backgroundColor=k;"
    "d.borderColor=k});\n"
    "c.options=c.options||{};const scales=c.options.scales||{};\n"
    "Object.values(scales).forEach(a=>{if(a.unit==='bytes'){a.ticks=Object.assign(a.ticks||{},"
    "{callback:bytes,maxTicksLimit:8})}});\n"
    "charts.push(new Chart(document.getElementById(e.dataset.chart),c));\n"
    "});}\n"
    "draw();matchMedia('(prefers-color-scheme: dark)').addEventListener('change',draw);\n"
    "addEventListener('beforeprint',draw);addEventListener('afterprint',draw);\n"
    "})();\n";

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
        fprintf(out, "<style>\n%s</style>\n</head>\n<body>\n", STYLE);
        put_element(out, "h1", report->title);
        fputs("<p class=\"sub\">", out);
        put_text(out, report->subtitle);
        fprintf(out, "</p>\n%s", report->text);
        if (report->charts)
            fprintf(out, "<script>%s</script>\n<script>\n%s</script>\n", report_script, SETUP);
        fputs("</body>\n</html>\n", out);
    }
    int code = EXIT_FAILED;
    if (out && fclose(out) == 0)
        code = output_text(file, "the report", text);
    else
        command_error("%s: no memory to write the report", file);
    free(text);
    return code;
}
