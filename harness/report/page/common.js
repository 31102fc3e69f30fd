// What all parts use: the data, elements, numbers, colours.
const harness = {
  data: JSON.parse(document.getElementById("data").textContent),
  details: new Map(),
  // Called by report/runs/<run>.js.
  loaded(run, details) { harness.details.set(run, details); },
};

// An element; text is always text, never markup.
function el(name, attributes = {}, ...children) {
  const found = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") found.className = value;
    else if (key.startsWith("on")) found.addEventListener(key.slice(2), value);
    else if (value !== false && value != null) found.setAttribute(key, value === true ? "" : value);
  }
  found.append(...children.filter((child) => child != null));
  return found;
}

function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim(); }

// Okabe and Ito's colours, which colour-blind people can tell apart; yellow is too pale for lines on white.
// On black the dark ones give way to lighter ones of the same hue.
const LIGHT = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7a7a7a"];
const DARK = ["#56B4E9", "#F08A4B", "#2BC79B", "#E3A3C8", "#E69F00", "#8FB8FF", "#B5B5B5"];
const SYMBOLS = ["circle", "diamond", "square", "triangle-up", "x", "cross", "star"];

function palette(index) {
  const colours = matchMedia("(prefers-color-scheme: dark)").matches ? DARK : LIGHT;
  return colours[index % colours.length];
}

function isCount(name) { return harness.data.counts.some((end) => name.endsWith(end)); }

function digits(name) {
  if (isCount(name)) return 0;
  if (/_seconds$|_MB$|per_second$|ms_per_image/.test(name)) return 1;
  return /^(image|pixel|anomalib|p_vs)_/.test(name) ? 3 : null;
}

function shown(name, value) {
  if (value == null) return "";
  const places = digits(name);
  return typeof value === "number" && places != null ? value.toFixed(places) : String(value);
}

function title(name) {
  return name.replaceAll("_", " ").replace("ms per image p50", "ms an image").replace("vs best", "against the best");
}

// Fill a select; hide it where there is no choice.
function choices(id, names, chosen, label = title) {
  const select = document.getElementById(id);
  select.replaceChildren(...names.map((name) => el("option", { value: name, selected: name === chosen }, label(name))));
  select.parentElement.hidden = names.length < 2;
  return select;
}

function quality() {
  return harness.data.metrics.filter((name) => !isCount(name) && !name.startsWith("anomalib_"));
}

// "" stands for the mean over categories.
function places() {
  const { categories } = harness.data;
  return categories.length > 1 ? ["", ...categories] : [""];
}

function placeLabel(name) { return name === "" ? "average" : name; }

// Groups of models and backends, each with a colour and a symbol of its own.
function families() {
  const found = new Map();
  harness.data.settings.forEach((setting) => {
    const key = setting.facts.model + (setting.facts.backend === "anomalib" ? "" : " (" + setting.facts.backend + ")");
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(setting);
  });
  return [...found].map(([name, settings], index) => ({
    name, settings, colour: palette(index), symbol: SYMBOLS[index % SYMBOLS.length],
  }));
}
