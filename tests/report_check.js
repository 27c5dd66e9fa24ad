/* Runs in a report, after its own script, with the result file in the element "expected": says in
 * the title what is wrong, or how much is right. tests/report.sh reads it. */
(function () {
    "use strict";
    const problems = [];
    let numbers = 0, values = 0;
    const expected = JSON.parse(document.getElementById("expected").textContent);
    const at = (object, path) => path.split(".").reduce((o, key) => (o === null || o === undefined ? o : o[key]), object);

    function fail(text) {
        if (problems.length < 5) problems.push(text);
    }
    const close = (a, b, share) => Math.abs(a - b) <= share * Math.max(Math.abs(a), Math.abs(b));

    /* Cells: the exact value, and what is shown of it. */
    document.querySelectorAll("table[data-list]").forEach(table => {
        const keys = Array.from(table.querySelectorAll("thead th"), th => th.dataset.key);
        const list = at(expected, table.dataset.list);
        table.querySelectorAll("tr[data-item]").forEach(row => {
            const item = list[+row.dataset.item];
            Array.from(row.children).forEach((cell, i) => {
                if (!keys[i]) return;
                const want = at(item, keys[i]), where = table.dataset.list + "." + row.dataset.item + "." + keys[i];
                if (want === null || want === undefined) {
                    if (cell.textContent !== "\u2013") fail(where + ": shows " + cell.textContent + " for null");
                    return;
                }
                const shown = +cell.textContent.replace(/,/g, "");
                if (!close(+cell.dataset.value, want, 1e-8)) fail(where + ": has " + cell.dataset.value + ", not " + want);
                if (!close(shown, want, 6e-3)) fail(where + ": shows " + cell.textContent + ", not " + want);
                numbers++;
            });
        });
    });

    /* What the page carries is the file. */
    const carried = JSON.parse(document.getElementById("results").textContent);
    if (JSON.stringify(Object.keys(carried).sort()) !== JSON.stringify(Object.keys(expected).sort()))
        fail("the embedded file has other keys");
    if (carried.runs && carried.runs.some((run, i) => run.op !== expected.runs[i].op || !close(run.latency_ms.p50, expected.runs[i].latency_ms.p50, 1e-8)))
        fail("the embedded runs differ");

    /* Bars: every rate and latency that is plotted is one of the file's; and something is drawn. */
    const rows = expected.runs || [].concat(...expected.rows.map(r => r.files.filter(f => f)));
    const known = [].concat(...rows.map(r => [r.tokens_per_second, r.latency_ms ? r.latency_ms.p50 : r.p50_ms, r.speed]));
    const canvases = document.querySelectorAll("canvas");
    canvases.forEach(canvas => {
        const chart = typeof Chart === "undefined" ? null : Chart.getChart(canvas);
        if (!chart) return fail(canvas.id + ": no chart");
        const axis = chart.options.indexAxis === "y" && chart.options.scales.x.title.text;
        chart.data.datasets.forEach(set => set.data.forEach(value => {
            if (value === null || !/^(ms|tokens per second|speed)/.test(axis || "")) return;
            if (!known.some(k => k !== null && close(k, value, 1e-8))) fail(canvas.id + ": plots " + value);
            values++;
        }));
        const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        if (!pixels.some(p => p !== 0)) fail(canvas.id + ": nothing is drawn");
    });
    if (document.documentElement.scrollWidth > innerWidth + 1) fail("the page is wider than the window");
    document.title = problems.length ? "WRONG " + problems.join("; ")
        : "RIGHT " + numbers + " numbers, " + canvases.length + " plots of " + values + " values";
})();
