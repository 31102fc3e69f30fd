// The critical-difference figure (Demsar 2006): a row for each configuration, its whole name above its bar.
const RANK_FONT = 12, RANK_LINE = 16, RANK_BAR = 26, RANK_SIDE = 12; // pixels

// Lines of a label that fit a width. An axis keeps its value on its line; one that is too long is broken, never cut.
function wrapped(label, width) {
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `${RANK_FONT}px ${getComputedStyle(document.body).fontFamily}`;
  const fits = (line) => pen.measureText(line).width <= width;
  const lines = [""];
  for (const axis of label.split("\n")) {
    const joined = lines.at(-1) ? `${lines.at(-1)} ${axis}` : axis;
    if (fits(joined)) { lines[lines.length - 1] = joined; continue; }
    if (lines.at(-1)) lines.push("");
    for (const letter of axis) {
      if (!fits(lines.at(-1) + letter)) lines.push("");
      lines[lines.length - 1] += letter;
    }
  }
  return lines;
}

// At most eight whole ranks: a bar may reach below 1 and above the last, where there are no ranks.
function rankTicks(last) {
  const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];
  const step = steps.find((one) => last / one <= 8) ?? 10000;
  const ticks = [1];
  for (let tick = step; tick <= last; tick += step) if (tick > 1) ticks.push(tick);
  return ticks;
}

// The vertical place of each row in pixels, so that a name of several lines makes a higher row.
function rankRows(rows, width) {
  let bottom = 0;
  return rows.map((row) => {
    const lines = wrapped(`${row.label} (${row.rank.toFixed(2)})`, width), top = bottom;
    bottom += lines.length * RANK_LINE + RANK_BAR;
    return { ...row, lines, top, bottom, bar: bottom - RANK_BAR + 9 };
  });
}

function rankName({ lines, top }) {
  return {
    xref: "paper", x: 0, xanchor: "left", align: "left", y: top, yanchor: "top", borderpad: 0, showarrow: false,
    text: lines.map(escaped).join("<br>"), font: { size: RANK_FONT, color: colour("ink") },
  };
}

// Points with bars as long as the critical difference.
// They have the colours of no model.
function rankTrace(name, ink, mark, rows, critical) {
  return {
    type: "scatter", mode: "markers", name, x: rows.map((row) => row.rank), y: rows.map((row) => row.bar), customdata: rows.map((row) => row.run),
    text: rows.map((row) => [...row.label.split("\n").map(escaped), `mean rank: <b>${row.rank.toFixed(2)}</b>`, `mean image AUROC: <b>${row.auroc.toFixed(3)}</b>`].join("<br>")),
    hovertemplate: "%{text}<extra></extra>", marker: { size: 9, color: colour(ink), symbol: mark },
    error_x: { type: "constant", value: critical / 2, thickness: 3, width: 0, color: colour(ink) },
  };
}

// The bar of the best configuration over all rows; bars outside of it are significantly worse.
function rankBand(best, critical) {
  const [x0, x1] = [best.rank - critical / 2, best.rank + critical / 2];
  return { type: "rect", layer: "below", yref: "paper", y0: 0, y1: 1, x0, x1, fillcolor: colour("quiet"), opacity: 0.2, line: { width: 0 } };
}

function plotRanks({ rows, critical, significant, configurations }) {
  const placed = rankRows(rows, document.getElementById("plot-ranks").clientWidth - 2 * RANK_SIDE - 8);
  const [best] = placed, { bottom } = placed.at(-1);
  const isWorse = (row) => row.rank - best.rank > critical;
  const traces = significant
    ? [
      rankTrace("no significant difference from the first", "ink", "circle", placed.filter((row) => !isWorse(row)), critical),
      rankTrace("significantly worse than the first", "quiet", "x", placed.filter(isWorse), critical),
    ]
    : [rankTrace("no significant difference", "ink", "circle", placed, critical)];
  const top = significant ? 52 : 12; // for the legend
  return draw("plot-ranks", traces, {
    height: bottom + top + 48, margin: { l: RANK_SIDE, r: RANK_SIDE, t: top, b: 48 }, annotations: placed.map(rankName),
    shapes: significant ? [rankBand(best, critical)] : [], showlegend: significant, legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom" },
    yaxis: { visible: false, range: [bottom, 0], fixedrange: true },
    xaxis: { title: { text: "mean rank" }, zeroline: false, tickvals: rankTicks(configurations), fixedrange: true },
  }).then(opens);
}

function drawRanks() {
  const selected = Number(document.getElementById("dataset").value || 0);
  const ranked = harness.data.ranks.find((one) => one.dataset === selected);
  document.getElementById("ranks").hidden = !ranked;
  if (!ranked) return Promise.resolve();
  const paragraph = (text) => el("p", { class: text.startsWith("FEW") ? "notice" : null }, text);
  document.getElementById("ranks-sentences").replaceChildren(...ranked.sentences.map(paragraph));
  document.getElementById("ranks-figure").hidden = !ranked.rows.length;
  document.getElementById("ranks-band").hidden = !ranked.significant;
  return ranked.rows.length ? plotRanks(ranked) : Promise.resolve();
}
