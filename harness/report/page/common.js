// Shared by all scripts: the data, elements, numbers, colours.
const harness = {
  data: JSON.parse(document.getElementById("data").textContent),
  details: new Map(),
  // Called by report/runs/<run>.js.
  loaded(run, details) { harness.details.set(run, details); },
};

// An element; text is always text, never markup.
function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

// A colour of style.css.
function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim(); }

function isCount(name) { return harness.data.counts.includes(name); }

// Smaller error rates are better.
function isBetter(name, a, b) { return harness.data.falling.includes(name) ? a < b : a > b; }

function digits(name) {
  if (isCount(name)) return 0;
  if (/_seconds$|_MB$|per_second$|ms_per_image/.test(name)) return 1;
  return /^(image|pixel|region|anomalib|synthetic|p_vs)_/.test(name) ? 3 : null;
}

function shown(name, value) {
  if (value == null) return "";
  if (name.startsWith("false_alarms_") && typeof value === "number") return `${(100 * value).toFixed(1)}%`;
  const places = digits(name);
  return typeof value === "number" && places != null ? value.toFixed(places) : String(value);
}

// A time of a single image that was taken on a busy machine.
function busyMark(name, owner) { return owner.latency_busy && name.startsWith("ms_per_image") ? " (busy)" : ""; }

function title(name) {
  return name.replaceAll("_", " ").replace("ms per image p50", "ms an image").replace("vs best", "against the best");
}

// Fill a select; hide it where there is no choice.
function choices(id, names, selected, label = title) {
  const select = document.getElementById(id);
  select.replaceChildren(...names.map((name) => el("option", { value: name, selected: name === selected }, label(name))));
  select.parentElement.hidden = names.length < 2;
  return select;
}

function quality() {
  return harness.data.metrics.filter((name) => !isCount(name) && !name.startsWith("anomalib_"));
}

// "" stands for the mean over categories.
function places() {
  const categories = categoriesHere();
  return categories.length > 1 ? ["", ...categories] : [""];
}

// Configurations of the selected data set: one plot shows results on the same images only.
function here() {
  const dataset = Number(document.getElementById("dataset").value || 0);
  return harness.data.settings.filter((configuration) => configuration.dataset === dataset);
}

function categoriesHere() {
  return [...new Set(here().flatMap((configuration) => Object.keys(configuration.values)))].filter(Boolean).sort();
}

function placeLabel(name) { return name === "" ? "average" : name; }

function familyName({ facts }) { return `${facts.model} (${facts.backend})`; }

// A table with columns beyond its right edge fades out there, so that a cut number does not look like a whole one.
function fadeTables() {
  const update = (box) => box.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
  const sizes = new ResizeObserver((entries) => entries.forEach((entry) => update(entry.target.closest(".scroll"))));
  for (const box of document.querySelectorAll("main .scroll")) {
    [box, ...box.children].forEach((one) => sizes.observe(one));
    box.addEventListener("scroll", () => update(box), { passive: true });
  }
}
