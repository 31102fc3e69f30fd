// The search: its progress, the parameters of its trials, their importance.
function pointText(trial) {
  return Object.entries(trial.point).map(([name, value]) => `${escaped(name)}: <b>${escaped(String(value))}</b>`).join("<br>");
}

function drawConvergence() {
  const { trials, metric, sign } = harness.data.search;
  const done = trials.filter((trial) => trial.state === "done");
  const stopped = trials.filter((trial) => trial.state === "stopped" && trial.looks.length);
  let best = null;
  const line = trials.map((trial) => {
    if (trial.state === "done" && (best == null || sign * trial.value > sign * best)) best = trial.value;
    return best;
  });
  const points = (group, value, name, more) => ({
    type: "scatter", mode: "markers", name, x: group.map((trial) => trial.number), y: group.map(value),
    text: group.map(pointText), customdata: group.map((trial) => trial.run), ...more,
    hovertemplate: `trial %{x}: <b>%{y:.4f}</b><br>%{text}<extra></extra>`,
  });
  const traces = [
    { type: "scatter", mode: "lines", name: "best so far", x: trials.map((trial) => trial.number), y: line,
      line: { shape: "hv", width: 2, color: colour("ink") }, hoverinfo: "skip" },
    points(done, (trial) => trial.value, "completed", { marker: { size: 9, color: colour("ink") } }),
  ];
  if (stopped.length) traces.push(points(stopped, (trial) => trial.looks.at(-1)[1], "stopped early", { marker: { size: 9, symbol: "x", color: colour("quiet") } }));
  return draw("plot-convergence", traces, { xaxis: { title: { text: "trial" } }, yaxis: { title: { text: title(metric) } }, height: 420 })
    .then((target) => { if (typeof openRun === "function") opens(target); });
}

// The position of a value on its axis, from 0 to 1, and the ticks of the axis.
function scale({ name, log }, trials) {
  const values = trials.map((trial) => trial.point[name]);
  if (values.every((value) => typeof value === "number")) {
    const at = (value) => (log ? Math.log10(value) : value);
    const [low, high] = [Math.min(...values.map(at)), Math.max(...values.map(at))];
    const place = (value) => (high > low ? (at(value) - low) / (high - low) : 0.5);
    const ends = high > low ? [Math.min(...values), Math.max(...values)] : [values[0]];
    return { place, ticks: ends.map((value) => [place(value), String(Number(value.toPrecision(3)))]) };
  }
  const choices = [...new Set(values.map(String))].sort();
  const place = (value) => (choices.length > 1 ? choices.indexOf(String(value)) / (choices.length - 1) : 0.5);
  return { place, ticks: choices.map((value) => [place(value), value]) };
}

function drawParallel() {
  const { trials, axes, metric, sign } = harness.data.search;
  const done = trials.filter((trial) => trial.state === "done").sort((a, b) => sign * (a.value - b.value));
  if (!done.length) { document.getElementById("plot-parallel").replaceChildren(el("p", {}, "None yet.")); return Promise.resolve(); }
  const rows = done.map((trial) => ({ ...trial, point: { ...trial.point, [metric]: trial.value } }));
  const all = [...axes, { name: metric, log: false }];
  const scales = all.map((axis) => scale(axis, rows));
  // Lines with an equal choice are drawn with a small offset, so that each one is visible; better trials lie higher.
  const apart = (index, rank) => (scales[index].ticks.length && typeof rows[0].point[all[index].name] === "string" ? 0.06 * (rank / rows.length - 0.5) : 0);
  const traces = rows.map((trial, rank) => ({
    type: "scatter", mode: "lines", showlegend: false, x: all.map((_, index) => index),
    y: all.map(({ name }, index) => scales[index].place(trial.point[name]) + apart(index, rank)),
    opacity: 0.15 + 0.85 * ((rank + 1) / rows.length) ** 2, line: { width: 1 + 2 * ((rank + 1) / rows.length) ** 2, color: colour("ink"), shape: "spline", smoothing: 0.6 },
    text: all.map(() => `trial ${trial.number}: <b>${trial.value.toFixed(4)}</b><br>${pointText(trial)}`), hovertemplate: "%{text}<extra></extra>",
  }));
  const marks = scales.flatMap(({ ticks }, index) => ticks.map(([y, text]) => ({
    x: index, y, text: escaped(text.length > 22 ? `${text.slice(0, 21)}…` : text), showarrow: false, xanchor: index === all.length - 1 ? "right" : "left",
    xshift: index === all.length - 1 ? -4 : 4, font: { size: 11 }, bgcolor: colour("ground"), opacity: 0.85,
  })));
  return draw("plot-parallel", traces, {
    height: 440, annotations: marks, dragmode: false, margin: { l: 24, r: 24, t: 12, b: 64 },
    xaxis: { tickvals: all.map((_, index) => index), ticktext: all.map(({ name }) => escaped(name).replaceAll("_", "<br>")), range: [-0.15, all.length - 0.85], zeroline: false, linewidth: 0 },
    yaxis: { showticklabels: false, showgrid: false, zeroline: false, range: [-0.1, 1.1] },
  });
}

function drawImportance() {
  if (!document.getElementById("plot-importance")) return Promise.resolve();
  const shares = Object.entries(harness.data.search.importance).sort((a, b) => a[1] - b[1]);
  const names = shares.map(([name]) => escaped(name));
  return draw("plot-importance", [{ type: "bar", orientation: "h", y: names, x: shares.map(([, share]) => share), marker: { color: colour("quiet") }, hovertemplate: "%{y}: %{x:.0%}<extra></extra>" }],
    { height: 90 + 34 * shares.length, xaxis: { tickformat: ".0%", rangemode: "tozero" }, yaxis: { type: "category" } });
}

function searchPlots() { return harness.data.search ? [drawConvergence, drawParallel, drawImportance] : []; }
