// The page of a classification: a sortable table, and confusions, pairs, labels and curves of one configuration.
function sortBy(column, down) {
  const body = document.querySelector("#settings tbody");
  const key = (row) => row.cells[column].dataset.sort;
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    // Missing values come last in both directions.
    if (x === "" || y === "") return (x === "") - (y === "");
    const order = Number.isNaN(Number(x)) || Number.isNaN(Number(y)) ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
    return down ? -order : order;
  });
  body.replaceChildren(...rows);
}

function startSorting() {
  const heads = [...document.querySelectorAll("#settings th")];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") !== "descending";
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    sortBy(column, down);
  }));
}

const NUMBERED = 40; // labels of a matrix with numbers in its cells

function drawConfusion(one) {
  const names = one.labels.map((label) => escaped(label.label));
  const shares = one.confusion.map((row) => { const sum = row.reduce((a, b) => a + b, 0) || 1; return row.map((count) => count / sum); });
  const text = one.confusion.map((row) => row.map((count) => count || ""));
  const side = Math.max(420, Math.min(1400, 200 + 24 * names.length));
  const numbered = names.length <= NUMBERED;
  // In pixels, with 8 for a letter. On a narrow screen the reader scrolls, because smaller numbers would be illegible.
  const width = (numbered ? 26 : 12) * names.length + 8 * Math.max(...names.map((name) => name.length));
  Object.assign(document.getElementById("plot-confusion").style, { height: `${side}px`, minWidth: `${width}px` });
  return draw("plot-confusion", [{ type: "heatmap", x: names, y: names, z: shares, text, texttemplate: numbered ? "%{text}" : "", textfont: { size: 12 }, zmin: 0, zmax: 1, colorscale: [[0, colour("ground")], [1, colourOf(one.style)]], showscale: false, xgap: 1, ygap: 1, customdata: one.confusion, hovertemplate: "true %{y}<br>predicted %{x}<br>%{customdata} images<extra></extra>" }],
    { height: side, xaxis: { automargin: true, tickangle: -45, dtick: 1, type: "category", fixedrange: true }, yaxis: { automargin: true, autorange: "reversed", dtick: 1, type: "category", fixedrange: true }, margin: { l: 120, r: 8, t: 8, b: 120 } });
}

function drawRisk(one) {
  const { answered, risk, probability } = one.risk;
  return draw("plot-risk", [{ type: "scatter", mode: "lines", x: answered, y: risk, customdata: probability, line: { color: colourOf(one.style), shape: "hv" }, hovertemplate: "%{x:.0%} of the images get an answer<br>%{y:.1%} of the answers are wrong<br>probability from %{customdata:.3f}<extra></extra>" }],
    { xaxis: { title: { text: "share of images with an answer, out of fold" }, range: [0, 1.02], tickformat: ".0%" }, yaxis: { title: { text: "wrong answers" }, rangemode: "tozero", tickformat: ".0%" }, margin: { l: 60, r: 8, t: 8, b: 44 } });
}

function drawReliability(one) {
  const point = (bin) => `${bin.images} images<br>mean probability ${bin.probability.toFixed(3)}<br>right labels ${bin.accuracy.toFixed(3)} (95%: ${bin.low.toFixed(3)} to ${bin.high.toFixed(3)})`;
  const sides = [["raw", colour("quiet"), "circle-open"], ["calibrated", colourOf(one.style), "circle"]].map(([name, ink, symbol]) => {
    const bins = one.reliability[name];
    const most = Math.max(...bins.map((bin) => bin.images));
    return { type: "scatter", mode: "lines+markers", name, x: bins.map((bin) => bin.probability), y: bins.map((bin) => bin.accuracy), text: bins.map(point), line: { color: ink, width: 1 }, marker: { color: ink, symbol, size: bins.map((bin) => 5 + 12 * Math.sqrt(bin.images / most)) }, error_y: { type: "data", symmetric: false, array: bins.map((bin) => bin.high - bin.accuracy), arrayminus: bins.map((bin) => bin.accuracy - bin.low), thickness: 1, width: 2 }, hovertemplate: "%{text}<extra>%{fullData.name}</extra>" };
  });
  const diagonal = { type: "scatter", mode: "lines", name: "calibrated perfectly", x: [0, 1], y: [0, 1], line: { color: colour("line"), dash: "dot" }, hoverinfo: "skip" };
  return draw("plot-reliability", [diagonal, ...sides], { xaxis: { title: { text: "probability of the predicted label" }, range: [0, 1.02] }, yaxis: { title: { text: "share of right labels" }, range: [0, 1.02] }, margin: { l: 60, r: 8, t: 8, b: 44 } });
}

function drawLabels(one) {
  const labels = one.labels.filter((label) => label.f1 != null).sort((a, b) => a.images - b.images);
  return draw("plot-labels", [{ type: "bar", x: labels.map((label) => escaped(`${label.label} (${label.images})`)), y: labels.map((label) => label.f1), marker: { color: colourOf(one.style) }, hovertemplate: "%{x}<br>F1 %{y:.3f}<extra></extra>" }],
    { yaxis: { range: [0, 1.02], title: { text: "F1" } }, xaxis: { automargin: true, tickangle: -45, type: "category", dtick: labels.length <= 60 ? 1 : undefined }, margin: { l: 50, r: 8, t: 8, b: 120 } });
}

function drawImages(one) {
  const subsets = Object.entries(one.distribution).filter(([, counts]) => counts.some((count) => count > 0));
  const tested = subsets.some(([name]) => name === "test");
  document.getElementById("images").hidden = !subsets.length;
  if (!subsets.length) return undefined;
  const total = (place) => subsets.reduce((sum, [name, counts]) => sum + (name === "test" ? 0 : counts[place]), 0);
  const order = one.labels.map((_, place) => place).sort((a, b) => total(a) - total(b));
  const names = order.map((place) => escaped(one.labels[place].label));
  const inks = subsets.map(([name], index) => (name === "test" ? colour("quiet") : shade(one.style, index)));
  const traces = subsets.map(([name, counts], index) => ({ type: "bar", name, x: names, y: order.map((place) => counts[place]), yaxis: name === "test" ? "y2" : "y", marker: { color: inks[index] }, hovertemplate: `%{x}<br>${name}: %{y} images<extra></extra>` }));
  return draw("plot-images", traces, { barmode: "stack", xaxis: { automargin: true, tickangle: -45, type: "category", dtick: names.length <= 60 ? 1 : undefined, anchor: tested ? "y2" : "y" }, yaxis: { title: { text: "images" }, domain: [tested ? 0.4 : 0, 1] }, ...(tested ? { yaxis2: { title: { text: "test" }, domain: [0, 0.3] } } : {}), margin: { l: 50, r: 8, t: 8, b: 120 }, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 } });
}

function drawEpochs(one) {
  // A probe has no epochs.
  document.getElementById("training").hidden = !Object.keys(one.epochs).length;
  const traces = Object.entries(one.epochs).flatMap(([name, entries], index) => [
    { type: "scatter", mode: "lines", name: `${name} train loss`, legendgroup: name, x: entries.map((e) => e.epoch), y: entries.map((e) => e.train_loss), line: { color: shade(one.style, index), dash: "dot" } },
    { type: "scatter", mode: "lines", name: `${name} validation loss`, legendgroup: name, x: entries.map((e) => e.epoch), y: entries.map((e) => e.val_loss), line: { color: shade(one.style, index) } },
    { type: "scatter", mode: "lines", name: `${name} macro F1`, legendgroup: name, x: entries.map((e) => e.epoch), y: entries.map((e) => e.val_macro_F1), yaxis: "y2", line: { color: shade(one.style, index), width: 3 } },
  ]);
  return draw("plot-epochs", traces, { xaxis: { title: { text: "epoch" } }, yaxis: { title: { text: "loss" }, domain: [0, 0.45] }, yaxis2: { title: { text: "macro F1" }, domain: [0.55, 1], range: [0, 1.02], anchor: "x" }, margin: { l: 50, r: 8, t: 8, b: 44 }, showlegend: traces.length <= 36 });
}

function pairs(one) {
  if (!one.confused.length) return [el("p", { class: "quiet" }, "None: every image has its true label.")];
  return one.confused.map((pair) => el("figure", { class: "pair" },
    el("figcaption", {}, el("b", {}, pair.label), " predicted as ", el("b", {}, pair.said), `: ${pair.images} of ${pair.of}`),
    el("div", { class: "examples" }, ...pair.examples.map((example) => el("div", { class: "example" },
      el("img", { src: example.file, loading: "lazy", alt: `${example.name}: ${pair.label} predicted as ${pair.said}`, title: `${example.name}, probability ${example.probability.toFixed(2)}` }),
      ...(example.cam ? [el("img", { src: example.cam, loading: "lazy", alt: `${example.name}: the pixels for ${pair.said}`, title: `Grad-CAM of ${pair.said}` })] : []))))));
}

function camSentence(one) {
  if (one.cam_note) return `There is no Grad-CAM: ${one.cam_note}.`;
  const drawn = one.confused.some((pair) => pair.examples.some((example) => example.cam));
  return drawn ? "Below each picture: Grad-CAM of the wrong label. Yellow pixels made the network predict it, dark ones did not. The network was not trained on the picture." : "";
}

async function showConfiguration() {
  const one = harness.data.settings[Number(document.getElementById("setting").value)];
  document.getElementById("files").href = one.folder;
  document.getElementById("warnings").replaceChildren(...one.warnings.map((text) => el("p", { class: "quiet" }, text)));
  document.getElementById("confused").replaceChildren(...pairs(one));
  document.getElementById("cam").textContent = camSentence(one);
  document.getElementById("coverage").textContent = one.coverage;
  document.getElementById("calibration").textContent = one.calibration;
  await drawConfusion(one);
  await drawReliability(one);
  await drawLabels(one);
  await drawImages(one);
  await drawEpochs(one);
  await drawRisk(one);
  document.body.dataset.ready = "true";
}

document.addEventListener("DOMContentLoaded", () => {
  fadeTables();
  if (!harness.data.settings.length) { document.body.dataset.ready = "true"; return; }
  startSorting();
  document.getElementById("setting").addEventListener("change", showConfiguration);
  const all = async () => { for (const one of [...searchPlots(), showConfiguration]) await one(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
  all();
});
