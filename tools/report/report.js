/* Makes the charts, in the colours of the page, and again when those change (dark, print).
 *
 * Beyond Chart.js, a dataset may have
 *     intervals  [[low, high], ...]: a whisker at each value, along the axis of the values
 *     names      of its points, for tooltips
 *     colour     index into the palette (else its own index)
 *     quiet      not in the legend
 * and an axis unit: "bytes" or "compact" (1k, 1M) for its ticks. */
(function () {
    "use strict";
    /* Okabe and Ito's colours, which colour-blind readers can tell apart, and lighter ones of the
     * same hues for dark pages; after them what fills up. */
    const light = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d3b",
                   "#5f6b7a", "#7a4fb5", "#a3b300"];
    const dark = ["#4aa8e0", "#ff8a3d", "#2fc79a", "#e59ac8", "#f2b632", "#8ed2f5", "#c9aa74",
                  "#9aa7b8", "#b394e6", "#cfdc4a"];
    let charts = [];

    function scaled(value, units, digits) {
        let unit = 0;
        while (Math.abs(value) >= 1000 && unit + 1 < units.length) {
            value /= 1000;
            unit++;
        }
        return +value.toPrecision(digits) + units[unit];
    }
    const bytes = v => scaled(v, [" B", " kB", " MB", " GB"], 3);
    const compact = v => (Math.abs(v) < 1 ? +v.toPrecision(3) + "" : scaled(v, ["", "k", "M", "G"], 3));

    /* Of a logarithmic axis: powers of ten, and where there are few of these twice and five times. */
    function isRound(value, ticks) {
        const decades = Math.log10(ticks[ticks.length - 1].value / ticks[0].value);
        const first = value / Math.pow(10, Math.floor(Math.log10(value) + 1e-9));
        const near = n => Math.abs(first - n) < 1e-6;
        return near(1) || (decades < 3 && (near(2) || near(5)));
    }

    /* The lines of a label, no longer than leaves room for the bars. */
    function shortLabel(value) {
        const most = Math.max(12, Math.min(40, Math.floor(this.chart.width / 17)));
        return [].concat(this.getLabelForValue(value))
            .map(line => (line.length > most ? line.slice(0, most - 1) + "\u2026" : line));
    }

    /* Whiskers along the axis of the values. */
    const whiskers = {
        id: "whiskers",
        afterDatasetsDraw(chart) {
            const context = chart.ctx, sideways = chart.options.indexAxis === "y";
            chart.data.datasets.forEach((set, i) => {
                if (!set.intervals || !chart.isDatasetVisible(i)) return;
                const meta = chart.getDatasetMeta(i), scale = meta.vScale;
                context.save();
                context.strokeStyle = chart.options.ink;
                context.lineWidth = 1.5;
                meta.data.forEach((element, k) => {
                    const range = set.intervals[k];
                    if (!range || range[0] === null || range[1] === null) return;
                    const from = scale.getPixelForValue(range[0]), to = scale.getPixelForValue(range[1]);
                    const at = sideways ? element.y : element.x, cap = 4;
                    context.beginPath();
                    if (sideways) {
                        context.moveTo(from, at);
                        context.lineTo(to, at);
                        [from, to].forEach(x => { context.moveTo(x, at - cap); context.lineTo(x, at + cap) });
                    } else {
                        context.moveTo(at, from);
                        context.lineTo(at, to);
                        [from, to].forEach(y => { context.moveTo(at - cap, y); context.lineTo(at + cap, y) });
                    }
                    context.stroke();
                });
                context.restore();
            });
        }
    };

    function tooltip(item) {
        const set = item.dataset, range = set.intervals && set.intervals[item.dataIndex];
        const name = set.names && set.names[item.dataIndex];
        const sideways = item.chart.options.indexAxis === "y";
        let text = (name || set.label) + ": ";
        if (item.chart.config.type === "scatter")
            text += compact(item.parsed.x) + ", " + compact(item.parsed.y);
        else
            text += +(sideways ? item.parsed.x : item.parsed.y).toPrecision(4);
        if (range && range[0] !== null) text += " (" + +range[0].toPrecision(4) + " to " + +range[1].toPrecision(4) + ")";
        return text;
    }

    function prepare(config, colours, ink, line) {
        config.data.datasets.forEach((set, i) => {
            const colour = colours[(set.colour === undefined ? i : set.colour) % colours.length];
            set.backgroundColor = colour;
            set.borderColor = colour;
        });
        const options = config.options = config.options || {};
        options.ink = ink;
        options.plugins = Object.assign(options.plugins || {}, {
            legend: {
                display: config.data.datasets.length > 1 || options.legend === true,
                labels: {
                    boxWidth: 14,
                    filter: (item, data) => !data.datasets[item.datasetIndex].quiet
                }
            },
            tooltip: {callbacks: {label: tooltip}}
        });
        const scales = options.scales || {};
        if (options.indexAxis === "y")
            scales.y.ticks = Object.assign(scales.y.ticks || {}, {callback: shortLabel});
        Object.values(scales).forEach(axis => {
            const format = axis.unit === "bytes" ? bytes : axis.unit === "compact" ? compact : null;
            axis.grid = Object.assign(axis.grid || {}, {color: line});
            if (format)
                axis.ticks = Object.assign(axis.ticks || {}, {
                    callback: (v, i, ticks) => (axis.type === "logarithmic" && !isRound(v, ticks) ? null : format(v)),
                    maxTicksLimit: axis.type === "logarithmic" ? 60 : 8,
                    maxRotation: 0,
                    autoSkipPadding: 12
                });
        });
        return config;
    }

    function draw() {
        const print = matchMedia("print").matches;
        const style = getComputedStyle(document.documentElement);
        const ink = style.getPropertyValue("--ink").trim(), line = style.getPropertyValue("--line").trim();
        const colours = !print && matchMedia("(prefers-color-scheme: dark)").matches ? dark : light;
        charts.forEach(chart => chart.destroy());
        Chart.defaults.color = ink;
        Chart.defaults.borderColor = line;
        Chart.defaults.animation = false;
        Chart.defaults.maintainAspectRatio = false;
        Chart.defaults.font.family = "system-ui, sans-serif";
        if (innerWidth < 640) Chart.defaults.font.size = 11;
        charts = Array.from(document.querySelectorAll("script[data-chart]"), element => {
            const config = prepare(JSON.parse(element.textContent), colours, ink, line);
            config.plugins = [whiskers];
            return new Chart(document.getElementById(element.dataset.chart), config);
        });
    }

    /* Files that the page carries, as links. */
    function link(element) {
        const place = document.getElementById(element.dataset.link);
        place.href = URL.createObjectURL(new Blob([element.textContent], {type: "application/json"}));
    }

    if (typeof Chart !== "undefined") {
        draw();
        matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
        matchMedia("print").addEventListener("change", draw);
    }
    document.querySelectorAll("script[data-link]").forEach(link);
})();
