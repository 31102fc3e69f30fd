// The style of models in all figures: a colour and a symbol for a model, a fill for a backend. Colours that belong to no
// model are grey or the colour of text. report/model_styles.py chooses which model has which style.
const SYMBOLS = ["circle", "diamond", "square", "triangle-up", "x", "star"];
const FILLS = ["", "-open", "-open-dot"];
// The same symbols as letters, for the names below a figure.
const LETTERS = ["●◆■▲✖★", "○◇□△✕☆", "◉◈▣◬⊗✪"];
// The lines of plotly in SVG, for the names below a figure.
const STROKES = { solid: "", dash: "6 3", dot: "2 2", dashdot: "6 2 2 2", longdash: "10 3", longdashdot: "10 2 2 2" };

function colourOf({ model }) {
  const colours = matchMedia("(prefers-color-scheme: dark)").matches ? harness.data.styles.dark : harness.data.styles.light;
  return colours[model % colours.length];
}

// Six colours and six symbols: 36 models have different styles.
function symbolOf({ model }) { return (model + Math.floor(model / harness.data.styles.light.length)) % SYMBOLS.length; }

function fillOf({ backend }) { return backend % FILLS.length; }

// Plotly's marker of one or several points.
function markerOf(styles, size = 9) {
  const open = styles.some((style) => fillOf(style) > 0);
  return { size, color: styles.map(colourOf), symbol: styles.map((style) => SYMBOLS[symbolOf(style)] + FILLS[fillOf(style)]), line: { width: open ? 2 : 1, color: colour("ground") } };
}

// A mixture of two colours of the form #rrggbb.
function mixed(first, second, share) {
  const parts = (text) => [1, 3, 5].map((start) => parseInt(text.slice(start, start + 2), 16));
  const [a, b] = [parts(first), parts(second)];
  return `#${a.map((part, i) => Math.round(part + share * (b[i] - part)).toString(16).padStart(2, "0")).join("")}`;
}

// The colour of a model in one of its shades: the first one is the colour itself.
function shade(style, place) {
  const { shades } = harness.data.styles, share = shades[place % shades.length];
  return mixed(colourOf(style), colour(share < 0 ? "ground" : "ink"), Math.abs(share));
}

// Plotly's line of each series of styles, one style a point. Lines of one model have shades of its colour, and no two
// lines are alike. A line from model to model is grey.
function linesOf(series) {
  const { lines } = harness.data.styles, used = new Map();
  return series.map((styles) => {
    const model = styles.every((style) => style.model === styles[0].model) ? styles[0].model : -1;
    const place = used.get(model) ?? 0;
    used.set(model, place + 1);
    return { color: model < 0 ? colour("quiet") : shade(styles[0], place), dash: lines[place % lines.length], width: 2 };
  });
}

// The names below a figure, which wrap where Plotly's legend would be cut. An entry has a name, and a line, styles, or both.
function drawNames(id, entries) {
  document.getElementById(id).replaceChildren(...entries.map(({ name, line, styles = [] }) => el("li", {}, ...(line ? [stroke(line)] : []), symbolFor(styles), name)));
}

// The symbol of equal styles; nothing for a line from model to model, whose points have several.
function symbolFor(styles) {
  if (!styles.length || styles.some((style) => style.model !== styles[0].model || style.backend !== styles[0].backend)) return null;
  const letter = el("span", { class: "symbol", "aria-hidden": "true" }, LETTERS[fillOf(styles[0])][symbolOf(styles[0])]);
  letter.style.color = colourOf(styles[0]);
  return letter;
}

function stroke({ color, dash }) {
  const box = el("span", { class: "stroke", "aria-hidden": "true" });
  const [svg, line] = ["svg", "line"].map((name) => document.createElementNS("http://www.w3.org/2000/svg", name));
  for (const [key, value] of Object.entries({ width: 30, height: 10 })) svg.setAttribute(key, value);
  for (const [key, value] of Object.entries({ x1: 0, x2: 30, y1: 5, y2: 5, stroke: color, "stroke-width": 2.5, "stroke-dasharray": STROKES[dash] })) line.setAttribute(key, value);
  svg.append(line);
  box.append(svg);
  return box;
}

// Models and backends of the selected data set, with their configurations.
function families() {
  const groups = new Map();
  here().forEach((configuration) => {
    const key = familyName(configuration);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(configuration);
  });
  return [...groups].map(([name, configurations]) => ({ name, configurations, style: configurations[0].style }));
}
