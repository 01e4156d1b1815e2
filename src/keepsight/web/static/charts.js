// Draws each chart from the table beside it, so that the two cannot disagree.
(() => {
  // A custom property may hold light-dark(), which a canvas does not know; as the colour of an element it is resolved.
  const colour = (name) => {
    const probe = document.body.appendChild(document.createElement("i"));
    probe.style.color = `var(${name})`;
    const resolved = getComputedStyle(probe).color;
    probe.remove();
    return resolved;
  };

  const columns = (table) => {
    const rows = [...table.tBodies[0].rows];
    return [...table.tHead.rows[0].cells].map((_, column) =>
      rows.map((row) => {
        const text = row.cells[column].dataset.v;
        return text === "" ? null : Number(text);
      }),
    );
  };

  // Times are told in UTC, as in the tables: [from seconds on, format, where a year, day or hour begins, ...].
  const day = "\n{D} {MMM}";
  const year = "\n{D} {MMM} {YYYY}";
  const times = [
    [31536000, "{YYYY}", null, null, null, null, null, null, 1],
    [2419200, "{MMM}", "\n{YYYY}", null, null, null, null, null, 1],
    [86400, "{D} {MMM}", "\n{YYYY}", null, null, null, null, null, 1],
    [3600, "{HH}:00", year, null, day, null, null, null, 1],
    [60, "{HH}:{mm}", year, null, day, null, null, null, 1],
    [1, "{HH}:{mm}:{ss}", year, null, day, null, null, null, 1],
  ];

  const series = (kind, names) => {
    const main = { label: names[1], stroke: colour("--ks-accent"), width: 2, points: { show: kind === "band" } };
    if (kind === "time") {
      return [{}, main, { label: names[2], stroke: colour("--ks-alert"), width: 1, dash: [6, 4], points: { show: false } }];
    }
    if (kind === "band") {
      const edge = { stroke: "transparent", points: { show: false } };
      return [{}, { ...edge, label: names[3] }, { ...edge, label: names[2] }, main];
    }
    const bars = uPlot.paths.bars({ size: [0.7, 40] });
    return [
      {},
      { label: names[1], paths: bars, fill: colour("--ks-soft"), stroke: colour("--ks-accent"), points: { show: false } },
      { label: names[2], paths: bars, fill: colour("--ks-alert"), stroke: colour("--ks-alert"), points: { show: false } },
    ];
  };

  const draw = (figure) => {
    const plot = figure.querySelector(".plot");
    const table = figure.querySelector("table");
    const kind = figure.dataset.chart;
    const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
    const all = columns(table);
    // The line is drawn last, so that it lies upon its band.
    const data = kind === "band" ? [all[0], all[3], all[2], all[1]] : all.slice(0, 3);
    // Room for a bar's half, or around a single point, for which uPlot itself would take years.
    const alone = data[0].length === 1 ? 43200 : 0;
    const step = kind === "bars" ? Math.min(...data[0].slice(1).map((at, place) => at - data[0][place]), 3600) / 2 : alone;
    const from = data[0][0] - step;
    const until = data[0][data[0].length - 1] + step;
    const log = "log" in figure.dataset;
    const percent = "percent" in figure.dataset;
    const axis = { stroke: colour("--ks-muted"), grid: { stroke: colour("--ks-line"), width: 1 }, ticks: { show: false } };
    const value = (_, ticks) => ticks.map((tick) => (tick === null ? "" : percent ? `${Math.round(tick * 100)} %` : String(tick)));
    plot.replaceChildren();
    plot.hidden = false;
    new uPlot(
      {
        width: plot.clientWidth,
        height: 220,
        tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "Etc/UTC"),
        legend: { show: false },
        cursor: { drag: { x: false, y: false } },
        scales: {
          x: { time: true, range: () => [from, until] },
          y: log ? { distr: 3 } : percent ? { range: [0, 1] } : { range: (_, low, high) => [0, Math.max(1, high * 1.1)] },
        },
        axes: [{ ...axis, values: times }, log ? { ...axis, size: 60 } : { ...axis, size: 60, values: value }],
        series: series(kind, names),
        bands: kind === "band" ? [{ series: [1, 2], fill: colour("--ks-soft") }] : [],
      },
      log ? [data[0], ...data.slice(1).map((column) => column.map((v) => (v === null ? null : Math.max(v, 1e-3))))] : data,
      plot,
    );
  };

  const drawAll = () => document.querySelectorAll("figure[data-chart]").forEach(draw);
  let waiting = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(drawAll, 150);
  });
  document.addEventListener("DOMContentLoaded", drawAll);
  document.addEventListener("keepsight:theme", drawAll);
  document.addEventListener("htmx:after:swap", drawAll);
})();
