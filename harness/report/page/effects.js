// The effect of an axis: a series joins configurations that differ in this axis only.

// The series of an axis, the best first. Of several configurations with one value, the best one counts.
function seriesOf(axis, metric, place) {
  const groups = new Map();
  for (const configuration of here()) {
    const [effect, values] = [configuration.effects[axis], valuesAt(configuration, place)];
    if (!effect || values?.[metric] == null) continue;
    if (!groups.has(effect.series)) groups.set(effect.series, new Map());
    const points = groups.get(effect.series);
    const other = points.get(effect.value);
    if (!other || isBetter(metric, values[metric], other.values[metric])) points.set(effect.value, { x: effect.value, configuration, values });
  }
  const order = (a, b) => (typeof a.x === "number" && typeof b.x === "number" ? a.x - b.x : String(a.x).localeCompare(String(b.x), undefined, { numeric: true }));
  const series = [...groups.values()].map((group) => {
    const points = [...group.values()].sort(order);
    const best = points.map((point) => point.values[metric]).reduce((a, b) => (isBetter(metric, a, b) ? a : b));
    return { points, best, name: seriesName(points) };
  });
  return series.sort((a, b) => (a.points.length > 1 ? 0 : 1) - (b.points.length > 1 ? 0 : 1) || (isBetter(metric, a.best, b.best) ? -1 : 1));
}

// What all configurations of a series share in their labels.
function seriesName(points) {
  const [first, ...others] = points.map((point) => point.configuration.label.split("\n"));
  return first.filter((line) => others.every((lines) => lines.includes(line))).join(" ") || "all configurations";
}

// The axis with the most points on lines; an axis with single points only is never first.
function longestSeries(axes) {
  const points = (axis) => {
    const values = new Map();
    for (const { effects, dataset } of harness.data.settings) if (effects[axis]) {
      const key = `${dataset} ${effects[axis].series}`;
      values.set(key, (values.get(key) ?? new Set()).add(effects[axis].value));
    }
    return [...values.values()].filter((set) => set.size > 1).reduce((sum, set) => sum + set.size, 0);
  };
  return [...axes].sort((a, b) => points(b) - points(a))[0];
}

function alongAxis(axis, series) {
  const values = [...new Set(series.flatMap(({ points }) => points.map((point) => point.x)))];
  if (values.some((value) => typeof value !== "number")) {
    values.sort((a, b) => String(a).localeCompare(String(b), undefined, { numeric: true }));
    return { type: "category", categoryorder: "array", categoryarray: values.map(String), tickvals: values.map(String), ticktext: values.map((value) => escaped(String(value)).replace(/(.{14}[^+_]*[+_])/g, "$1<br>")) };
  }
  const wide = Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) >= 8;
  const ticks = values.sort((a, b) => a - b).slice(0, 12);
  return { type: wide ? "log" : "linear", tickvals: ticks, ticktext: ticks.map(String) };
}

function drawEffect() {
  const [axis, y, cost, place] = ["effect-axis", "effect-y", "effect-cost", "effect-category"].map((id) => document.getElementById(id).value);
  const series = seriesOf(axis, y, place);
  const along = alongAxis(axis, series);
  const stylesOf = series.map(({ points }) => points.map((point) => point.configuration.style));
  // The best lines have a look and a name of their own, and all others are thin. A point without a line has no name.
  const named = Math.min(harness.data.styles.named, series.filter(({ points }) => points.length > 1).length);
  const own = linesOf(stylesOf.slice(0, named));
  const lines = series.map((_, index) => own[index] ?? { color: colour("quiet"), dash: "solid", width: 1 });
  const traces = series.flatMap(({ points, name }, index) => [[y, ""], [cost, "2"]].map(([metric, number]) => ({
    type: "scatter", mode: "lines+markers", name: escaped(name), showlegend: false, xaxis: "x" + number, yaxis: "y" + number,
    x: points.map((point) => (along.type === "category" ? String(point.x) : point.x)), y: points.map((point) => point.values[metric]),
    customdata: points.map((point) => point.configuration.run), text: points.map((point) => hover(point.configuration, point.values, [y, cost])),
    hovertemplate: "%{text}<extra></extra>", opacity: index < named || points.length === 1 ? 1 : 0.5, line: lines[index], marker: markerOf(stylesOf[index], 8),
  })));
  drawSeriesNames(series, named, lines);
  const points = series.flatMap((one) => one.points);
  const rings = [[y, ""], [cost, "2"]].map(([metric, number]) => ({ ...ringOf(points.map(({ x, configuration, values }) => ({ x: along.type === "category" ? String(x) : x, y: values[metric], configuration }))), xaxis: "x" + number, yaxis: "y" + number }));
  return draw("plot-effect", [...traces.reverse(), ...rings], {
    xaxis: { ...along, anchor: "y" }, xaxis2: { ...along, anchor: "y2", title: { text: title(axis) } },
    yaxis: { title: { text: title(y) }, domain: [0.55, 1], ...WITHIN }, yaxis2: { title: { text: title(cost) }, domain: [0, 0.45], rangemode: "tozero" },
  }).then(opens);
}

function drawSeriesNames(series, named, lines) {
  const stylesOf = (one) => one.points.map((point) => point.configuration.style);
  const names = series.slice(0, named).map((one, index) => ({ name: one.name, line: lines[index], styles: stylesOf(one) }));
  const others = new Map();
  for (const { configuration } of series.slice(named).flatMap(({ points }) => points)) {
    const family = familyName(configuration);
    others.set(family, { styles: [configuration.style], count: (others.get(family)?.count ?? 0) + 1 });
  }
  for (const [family, { styles, count }] of others) names.push({ name: `${count} other${count > 1 ? "s" : ""}, ${family}: point at one for its name`, styles });
  drawNames("effect-names", names);
}
