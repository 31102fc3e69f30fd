// Plots of all configurations. Colours come from the page's style, so that they follow light and dark.
function layout(more) {
  const ink = colour("ink");
  const axis = { gridcolor: colour("line"), zerolinecolor: colour("line"), linecolor: colour("line"), automargin: true };
  const narrow = window.innerWidth < 620;
  const base = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: narrow ? 11 : 13, family: "inherit" },
    margin: { l: 56, r: 12, t: 12, b: 48 }, hovermode: "closest",
    hoverlabel: { bgcolor: colour("raised"), bordercolor: colour("line"), font: { color: ink }, align: "left" },
    legend: { orientation: "h", y: -0.2, yanchor: "top", x: 0 }, dragmode: narrow ? false : "zoom",
  };
  const merged = { ...base, ...more };
  for (const key of ["xaxis", "yaxis", "xaxis2", "yaxis2"]) if (more[key]) merged[key] = { ...axis, ...more[key] };
  return merged;
}

function options() {
  const unused = ["select2d", "lasso2d", "autoScale2d"];
  return { responsive: true, displaylogo: false, modeBarButtonsToRemove: unused, displayModeBar: window.innerWidth < 620 ? false : "hover" };
}

function draw(id, traces, more) {
  const target = document.getElementById(id);
  if (!window.Plotly) {
    target.replaceChildren(el("p", { class: "notice" }, "report/plotly.min.js is missing: send the whole folder along with report.html."));
    return Promise.resolve(target);
  }
  target.setAttribute("role", "img");
  target.setAttribute("aria-label", "Plot. The table of runs has the same metrics and opens each run.");
  return Plotly.react(target, traces, layout(more), options()).then(() => target);
}

function opens(target) {
  if (!target.on) return;
  target.removeAllListeners?.("plotly_click");
  target.on("plotly_click", (event) => { const run = event.points[0].customdata; if (run) openRun(run); });
}

function hover(configuration, values, names) {
  const lines = names.filter((name) => values[name] != null).map((name) => `${title(name)}: <b>${shown(name, values[name])}</b>${busyMark(name, configuration)}`);
  return [...configuration.label.split("\n").map(escaped), ...lines].join("<br>");
}

// Plotly interprets some markup in its labels.
function escaped(text) { return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;"); }

// images_per_second is better when larger, all other costs when smaller.
function cheaper(name, a, b) { return name === "images_per_second" ? a > b : a < b; }

// The Pareto-optimal configurations, from the cheapest up: no other one is both better and cheaper.
function pareto(points, costName, metricName) {
  const ordered = [...points].sort((a, b) => (a.x === b.x ? (isBetter(metricName, a.y, b.y) ? -1 : 1) : cheaper(costName, a.x, b.x) ? -1 : 1));
  const front = [];
  for (const point of ordered) if (!front.length || isBetter(metricName, point.y, front.at(-1).y)) front.push(point);
  return front;
}

// Whole numbers on a logarithmic axis, where Plotly would write 2 for 20.
function logTicks(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const ticks = [];
  // On a short axis, 1, 2, 5, 10 ... would be one or two numbers.
  const digits = high < 10 * low ? [1, 1.5, 2, 3, 5, 7] : [1, 2, 5];
  for (let power = -3; power < 7; power++) for (const digit of digits) {
    const tick = digit * 10 ** power;
    if (tick >= low / 2 && tick <= high * 2) ticks.push(tick);
  }
  return { tickvals: ticks, ticktext: ticks.map((tick) => String(Number(tick.toPrecision(2)))) };
}

// All qualities lie between 0 and 1.
const WITHIN = { minallowed: -0.03, maxallowed: 1.03 };

function drawCost() {
  const [x, y, place] = ["cost-x", "cost-y", "cost-category"].map((id) => document.getElementById(id).value);
  const points = [];
  const traces = families().map((family) => {
    const members = family.configurations.map((configuration) => ({ configuration, values: valuesAt(configuration, place) }))
      .filter(({ values }) => values && values[x] != null && values[y] != null)
      .map(({ configuration, values }) => ({ x: values[x], y: values[y], configuration, values }));
    points.push(...members);
    return {
      type: "scatter", mode: "markers", name: family.name, x: members.map((p) => p.x), y: members.map((p) => p.y),
      customdata: members.map((p) => p.configuration.run), text: members.map((p) => hover(p.configuration, p.values, [y, "pixel_AUROC", x, "fit_seconds"].filter((n, i, a) => a.indexOf(n) === i))),
      hovertemplate: "%{text}<extra></extra>", marker: markerOf(members.map(() => family.style)), showlegend: false,
    };
  });
  const front = pareto(points, x, y);
  const frontLine = { color: colour("quiet"), width: 1.5, dash: "dot", shape: "hv" };
  drawNames("cost-names", [...families().map(({ name, style }) => ({ name, styles: [style] })), { name: "Pareto front", line: frontLine }]);
  traces.unshift({
    type: "scatter", mode: "lines", name: "Pareto front", x: front.map((p) => p.x), y: front.map((p) => p.y), hoverinfo: "skip",
    line: frontLine, showlegend: false,
  });
  traces.push(ringOf(points));
  return draw("plot-cost", traces, {
    xaxis: { title: { text: title(x) }, type: "log", ...logTicks(points.map((p) => p.x)) }, yaxis: { title: { text: title(y) }, ...WITHIN },
  }).then(opens);
}

// A ring with a word around the recommended configuration. The word stands on the side with more places.
function ringOf(points) {
  const rings = points.filter(({ configuration, y }) => configuration.recommended && y != null);
  const places = [...new Set(points.map(({ x }) => x))];
  const right = places.filter((x) => rings.some((ring) => x > ring.x)).length >= places.filter((x) => rings.some((ring) => x < ring.x)).length;
  return {
    type: "scatter", mode: "markers+text", name: "recommended", x: rings.map(({ x }) => x), y: rings.map(({ y }) => y), text: rings.map(({ configuration }) => configuration.recommended),
    textposition: `top ${right ? "right" : "left"}`, textfont: { color: colour("ink") }, cliponaxis: false, hoverinfo: "skip", showlegend: false,
    marker: { symbol: "circle-open", size: 18, color: colour("ink"), line: { width: 2 } },
  };
}

// A mean over categories is shown only for a configuration with all categories.
function valuesAt(configuration, place) {
  if (place === "" && configuration.complete < categoriesHere().length) return null;
  return configuration.values[place];
}

function drawCompare() {
  const y = document.getElementById("compare-y").value;
  const { settings, leaders, runs } = harness.data;
  const categories = categoriesHere();
  const best = here().filter((configuration) => leaders.includes(configuration.run));
  const traces = best.map((configuration, index) => {
    const members = runs.filter((run) => run.setting === settings.indexOf(configuration));
    const points = categories.map((category) => ({ category, values: configuration.values[category], runs: members.filter((run) => run.category === category) })).filter((p) => p.values && p.values[y] != null);
    // The interval belongs to one run, so several seeds have none.
    const single = y === "image_AUROC" && points.every((p) => p.runs.length === 1 && p.runs[0].image_AUROC_low != null);
    return {
      type: "scatter", mode: "markers", name: familyName(configuration),
      y: points.map((p) => categories.indexOf(p.category) + (index - (best.length - 1) / 2) * Math.min(0.12, 0.7 / best.length)), x: points.map((p) => p.values[y]),
      customdata: points.map((p) => p.runs[0]?.run), text: points.map((p) => escaped(p.category) + "<br>" + hover(configuration, p.values, [y, "pixel_AUROC", "ms_per_image_p50"])),
      hovertemplate: "%{text}<extra></extra>", marker: markerOf(points.map(() => configuration.style)), showlegend: false,
      error_x: single ? {
        type: "data", symmetric: false, thickness: 1.2, width: 3, color: colourOf(configuration.style), array: points.map((p) => p.runs[0].image_AUROC_high - p.values[y]),
        arrayminus: points.map((p) => p.values[y] - p.runs[0].image_AUROC_low),
      } : undefined,
    };
  });
  drawNames("compare-names", best.map((configuration) => ({ name: familyName(configuration), styles: [configuration.style] })));
  document.getElementById("bars").hidden = !traces.some((trace) => trace.error_x);
  document.getElementById("plot-compare").style.minHeight = `${100 + 70 * categories.length}px`;
  return draw("plot-compare", traces, {
    height: 120 + 70 * categories.length,
    yaxis: { tickvals: categories.map((_, i) => i), ticktext: categories.map(escaped), range: [categories.length - 0.5, -0.5], showgrid: false },
    xaxis: { title: { text: title(y) } },
  }).then(opens);
}

function startPlots() {
  const { axes, costs, metrics } = harness.data;
  const first = metrics.includes("image_AUROC") ? "image_AUROC" : quality()[0];
  const cost = costs.includes("ms_per_image_p50") ? "ms_per_image_p50" : costs[0];
  const on = (ids, update) => ids.forEach((id) => document.getElementById(id).addEventListener("change", update));
  choices("dataset", harness.data.datasets.map((_, index) => String(index)), "0", (index) => harness.data.datasets[index]);
  choices("cost-y", quality(), first); choices("cost-x", costs, cost); choices("cost-category", places(), "", placeLabel);
  choices("compare-y", quality(), first);
  on(["cost-y", "cost-x", "cost-category"], drawCost);
  on(["compare-y"], drawCompare);
  const drawn = [drawCost, drawCompare];
  if (harness.data.curves.length) drawn.push(drawCurve);
  if (harness.data.ranks.length) {
    drawn.push(drawRanks);
    // Its names are wrapped to the width of the page.
    addEventListener("resize", drawRanks);
  }
  if (axes.length) {
    choices("effect-axis", axes, longestSeries(axes), String); choices("effect-y", quality(), first);
    choices("effect-cost", costs, cost); choices("effect-category", places(), "", placeLabel);
    on(["effect-axis", "effect-y", "effect-cost", "effect-category"], drawEffect);
    document.getElementById("effect-axis").parentElement.hidden = false;
    drawn.push(drawEffect);
  }
  on(["dataset"], () => {
    choices("cost-category", places(), "", placeLabel);
    if (axes.length) choices("effect-category", places(), "", placeLabel);
    for (const one of drawn) one();
  });
  return drawn;
}
