// The learning curve: image AUROC over the number of normal images, a line for each configuration.
function curveTrace({ label, points, style }, line) {
  const text = (point) => [...label.split("\n").map(escaped), `normal images: <b>${point.images}</b>`, `image AUROC: <b>${point.value.toFixed(3)}</b>`, ...(point.low == null ? [] : [`95%: ${point.low.toFixed(3)} to ${point.high.toFixed(3)} (${point.covers})`])].join("<br>");
  return {
    type: "scatter", mode: "lines+markers", name: label.split("\n").map(escaped).join(" "), x: points.map((point) => point.images), y: points.map((point) => point.value),
    customdata: points.map((point) => point.run), text: points.map(text), hovertemplate: "%{text}<extra></extra>",
    showlegend: false, line, marker: markerOf(points.map(() => style), 8),
    error_y: {
      type: "data", symmetric: false, thickness: 1.2, width: 3, color: line.color,
      array: points.map((point) => (point.high ?? point.value) - point.value), arrayminus: points.map((point) => point.value - (point.low ?? point.value)),
    },
  };
}

function drawCurve() {
  const selected = Number(document.getElementById("dataset").value || 0);
  const figure = harness.data.curves.find((one) => one.dataset === selected);
  document.getElementById("curve").hidden = !figure;
  if (!figure) return Promise.resolve();
  document.getElementById("curve-sentences").replaceChildren(...figure.sentences.map((sentence) => el("p", {}, sentence)));
  const numbers = [...new Set(figure.lines.flatMap((line) => line.points.map((point) => point.images)))];
  const lines = linesOf(figure.lines.map(({ style }) => [style]));
  drawNames("curve-names", figure.lines.map(({ label, style }, index) => ({ name: label.replaceAll("\n", " "), line: lines[index], styles: [style] })));
  return draw("plot-curve", figure.lines.map((one, index) => curveTrace(one, lines[index])), {
    xaxis: { title: { text: "normal images" }, type: "log", tickvals: numbers, ticktext: numbers.map(String) }, yaxis: { title: { text: "image AUROC" }, ...WITHIN },
  }).then(opens);
}
