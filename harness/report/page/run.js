// One run: its metrics, curves, histogram and gallery, loaded when a reader opens the run.
function load(run) {
  if (harness.details.has(run)) return Promise.resolve(harness.details.get(run));
  return new Promise((done) => {
    const file = `report/runs/${encodeURIComponent(run)}.js`;
    const end = () => done(harness.details.get(run) ?? null);
    document.head.append(el("script", { src: file, onload: end, onerror: end }));
  });
}

// `moves`: whether the browser's Back closes the run; false if a link, or Back itself, opened the run.
async function openRun(id, moves = true) {
  const run = harness.data.runs.find((one) => one.run === id);
  const dialog = document.getElementById("run");
  if (!run) return;
  const body = document.getElementById("run-body");
  document.getElementById("run-title").textContent = [run.label, run.category, `seed ${run.seed}`].join(", ");
  body.replaceChildren(el("p", { class: "quiet" }, "loading ..."));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  const address = "#run=" + encodeURIComponent(id);
  if (moves) history.pushState({ run: id }, "", address);
  else history.replaceState({ run: id, linked: true }, "", address);
  const details = await load(id);
  if (!details) {
    body.replaceChildren(el("p", { class: "notice" }, `report/runs/${id}.js is missing: send the whole folder along with report.html.`));
    return;
  }
  body.replaceChildren(metricsAndCosts(run, details), curvesAndScores(details), defects(details), areas(details), overlaps(details), gallery(run, details));
  if (!harness.data.single) body.append(el("p", { class: "quiet" }, "Files: ", el("a", { href: run.folder }, run.folder)));
  if (details.curves) drawCurves(run, details);
  else if (details.scores.length) drawScores(run, details);
}

function falseAlarms(run) {
  const expected = run.false_alarms_expected == null ? "" : ` False alarms on normal images: at most ${shown("false_alarms_expected", run.false_alarms_expected)} (${run.false_alarms_guarantee})`;
  const measured = run.false_alarms_on_test == null ? "" : `${expected ? ", and" : " False alarms on normal images:"} ${shown("false_alarms_on_test", run.false_alarms_on_test)} on the test images`;
  return expected || measured ? `${expected}${measured}.` : "";
}

function changedThreshold(run) {
  return run.changed_threshold == null ? "" : ` Changed after the test to ${run.changed_threshold.toPrecision(6)}, for new images only.`;
}

function metricsAndCosts(run, details) {
  const rows = harness.data.metrics.filter((name) => details.metrics[name] != null).map((name) => {
    const ends = details.intervals[name];
    return el("tr", {}, el("th", { scope: "row" }, title(name)), el("td", { class: "number" }, shown(name, details.metrics[name])),
      el("td", { class: "number quiet" }, ends ? `${shown(name, ends[0])} to ${shown(name, ends[1])}` : ""));
  });
  const costs = harness.data.costs.filter((name) => run[name] != null).map((name) =>
    el("tr", {}, el("th", { scope: "row" }, title(name)), el("td", { class: "number" }, shown(name, run[name])), el("td", {}, busyMark(name, run))));
  const head = el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "metric"), el("th", { scope: "col", class: "number" }, "value"), el("th", { scope: "col", class: "number" }, "95% interval")));
  return el("div", {},
    ...details.warnings.map((text) => el("p", { class: "notice" }, text)),
    el("p", {}, `Threshold from: ${details.thresholds.fixed_by ?? "none"}.`, falseAlarms(run), changedThreshold(run), run.protocol ? ` Protocol of the pixel metrics: ${run.protocol}.` : "", run.vs_best ? ` Against the best run: ${run.vs_best}${run.p_vs_best == null ? "" : ` (adjusted p = ${run.p_vs_best.toFixed(3)})`}.` : ""),
    el("details", { open: window.innerWidth > 620 }, el("summary", {}, "Metrics and costs"), el("div", { class: "plots" }, el("div", { class: "scroll" }, el("table", {}, head, el("tbody", {}, ...rows))), el("div", { class: "scroll" }, el("table", {}, el("tbody", {}, ...costs))))));
}

function curvesAndScores(details) {
  return el("div", { class: "plots" }, ...[...(details.curves ? ["roc", "pr"] : []), ...(details.pimo_curve?.length ? ["pimo"] : []), "scores"].map((name) => el("div", { class: "plot", id: "plot-" + name })));
}

// Curves and scores have the colour of the model, as in the plots of all configurations.
function drawCurves(run, details) {
  const curves = details.curves ?? {};
  const levels = [["image", "solid"], ["pixel", "dash"]].filter(([level]) => curves[level]?.fpr);
  const line = (level, dash, x, y) => ({ type: "scatter", mode: "lines", name: level, x: curves[level][x], y: curves[level][y], line: { color: colourOf(run.style), dash, width: 2 } });
  const unit = { range: [-0.02, 1.02] };
  draw("plot-roc", levels.map(([level, dash]) => line(level, dash, "fpr", "tpr")), { title: { text: "ROC", font: { size: 14 } }, margin: { l: 50, r: 8, t: 30, b: 44 }, xaxis: { ...unit, title: { text: "false positive rate" } }, yaxis: { ...unit, title: { text: "true positive rate" } }, legend: { x: 0.98, y: 0.02, xanchor: "right", yanchor: "bottom" } });
  draw("plot-pr", levels.map(([level, dash]) => line(level, dash, "recall", "precision")), { title: { text: "Precision and recall", font: { size: 14 } }, margin: { l: 50, r: 8, t: 30, b: 44 }, xaxis: { ...unit, title: { text: "recall" } }, yaxis: { ...unit, title: { text: "precision" } }, legend: { x: 0.02, y: 0.02, yanchor: "bottom" } });
  if (details.pimo_curve?.length) drawOverlap(run, details.pimo_curve);
  drawScores(run, details);
}

// The mean per-image overlap. The band has the rates that AUPIMO counts.
function drawOverlap(run, points) {
  const band = { type: "scatter", mode: "lines", line: { width: 0 }, name: "limits of AUPIMO", x: [1e-5, 1e-4], y: [1, 1], fill: "tozeroy", fillcolor: colour("line"), hoverinfo: "skip" };
  const curve = { type: "scatter", mode: "lines", name: "mean overlap", x: points.map((one) => one.rate), y: points.map((one) => one.overlap), line: { color: colourOf(run.style), width: 2 } };
  draw("plot-pimo", [band, curve], { title: { text: "Per-image overlap", font: { size: 14 } }, margin: { l: 50, r: 24, t: 30, b: 44 }, xaxis: { type: "log", range: [-6.05, -2.95], tickvals: [1e-6, 1e-5, 1e-4, 1e-3], ticktext: ["1e-6", "1e-5", "0.0001", "0.001"], title: { text: "false positive rate of normal images" } }, yaxis: { range: [-0.02, 1.02], title: { text: "overlap with the defect" } }, legend: { x: 0.02, y: 0.98, yanchor: "top", bgcolor: "rgba(0,0,0,0)" } });
}

function drawScores(run, details) {
  const of = (label) => details.scores.filter((_, i) => details.labels[i] === label);
  const low = details.scores.reduce((a, b) => Math.min(a, b), Infinity);
  const high = details.scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const size = (high - low || 1) / 24;
  const bins = { start: low, end: high + size, size };
  const bars = (name, label, ink, pattern) => ({ type: "histogram", name, x: of(label), xbins: bins, opacity: 0.75, marker: { color: ink, pattern: { shape: pattern, fillmode: "overlay", fgcolor: colour("ground"), size: 5 } } });
  const at = details.thresholds.image;
  draw("plot-scores", [bars("normal", 0, colour("quiet"), ""), bars("anomalous", 1, colourOf(run.style), "/")], {
    title: { text: "Scores of the test images", font: { size: 14 } }, margin: { l: 44, r: 8, t: 30, b: 44 }, barmode: "overlay",
    xaxis: { title: { text: "raw score" } }, yaxis: { title: { text: "images" }, dtick: Math.max(1, Math.ceil(details.scores.length / 30)) }, legend: { x: 0.98, y: 0.98, xanchor: "right", yanchor: "top", bgcolor: "rgba(0,0,0,0)" },
    shapes: at == null ? [] : [{ type: "line", x0: at, x1: at, yref: "paper", y0: 0, y1: 1, line: { color: colour("ink"), width: 2, dash: "dot" } }],
    annotations: at == null ? [] : [{ x: at, y: 1, yref: "paper", text: "threshold", showarrow: false, xanchor: "left", yanchor: "top", xshift: 3 }],
  });
}

function defects(details) {
  if (!details.defects.length) return el("div");
  // Some data have metrics of pixels too.
  const metrics = ["image_AUROC", ...harness.data.metrics.filter((name) => name.startsWith("pixel_") && details.defects.some((one) => one[name] != null))];
  const rows = details.defects.map((one) => el("tr", {}, el("td", {}, one.defect), el("td", { class: "number" }, String(one.images)), el("td", { class: "number" }, one.missed == null ? "" : String(one.missed)), ...metrics.map((name) => el("td", { class: "number" }, shown(name, one[name])))));
  return el("div", {}, el("h3", {}, "Types of defect"), el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "type"), ...["images", "missed", ...metrics.map(title)].map((name) => el("th", { scope: "col", class: "number" }, name)))), el("tbody", {}, ...rows))));
}

// Are small defects found? A bar for each decile of the area.
function areas(details) {
  const groups = details.recall_by_area ?? [];
  if (!groups.length) return el("div");
  const rows = groups.map((one) => {
    const share = one.found / one.defects;
    const range = one.smallest === one.largest ? one.smallest : `${one.smallest} to ${one.largest}`;
    return el("tr", {}, el("td", { class: "number" }, String(range)), el("td", { class: "number" }, String(one.defects)), el("td", { class: "number" }, String(one.found)),
      el("td", { class: "number" }, share.toFixed(3)), el("td", {}, el("meter", { value: share, "aria-label": `recall ${share.toFixed(3)}` })));
  });
  return el("div", {}, el("h3", {}, "Recall by the area of the defect"), el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, ...["area in pixels", "defects", "found", "recall"].map((name) => el("th", { scope: "col", class: "number" }, name)), el("th", { scope: "col" }, ""))), el("tbody", {}, ...rows))));
}

const LOWEST = 10; // images of the table

// AUPIMO of the images where the map finds least of the defect.
function overlaps(details) {
  const images = details.aupimo_by_image ?? [];
  if (!images.length) return el("div");
  const rows = images.slice(0, LOWEST).map((one) => el("tr", {}, el("td", {}, one.name), el("td", { class: "number" }, shown("pixel_AUPIMO", one.value)),
    el("td", {}, el("meter", { value: one.value, "aria-label": `AUPIMO ${one.value.toFixed(3)}` }))));
  return el("div", {}, el("h3", {}, `AUPIMO of single images, the ${rows.length} lowest of ${images.length}`), el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "image"), el("th", { scope: "col", class: "number" }, "AUPIMO"), el("th", { scope: "col" }, ""))), el("tbody", {}, ...rows))));
}

const LEGEND = "Maps go from violet (normal) to yellow (anomalous), with one scale for all pictures. Masks are white on defects.";

function gallery(run, details) {
  const pictures = details.gallery ?? [];
  if (!details.curves) return el("p", { class: "quiet" }, "No curves and pictures: an earlier version made this run, or its details.json is missing.");
  if (harness.data.single && pictures.length) return el("p", { class: "quiet" }, "Pictures are in the result folder, and not in this file.");
  if (!pictures.length) return el("p", { class: "quiet" }, "No pictures.");
  return el("div", {}, el("h3", {}, "Test images, the worst first"), el("p", { class: "quiet" }, LEGEND),
    el("div", { class: "gallery", id: "gallery" }, ...pictures.map((one) => picture(run.folder, details.thresholds.image, one))));
}

function closeRun() {
  if (history.state?.run && !history.state.linked) history.back();
  else history.replaceState(null, "", location.pathname + location.search);
  for (const plot of document.querySelectorAll("#run .plot")) window.Plotly?.purge(plot);
}
