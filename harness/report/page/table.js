// The table of runs: sorted by any column, filtered by words and category, a few hundred rows at a time.
const ROWS = 300;
const table = { sort: "image_AUROC", down: true, all: false, own: [] };
const OWN = "my columns";

function columnSets() {
  const { metrics, costs, headline } = harness.data;
  const first = ["label", "dataset", "category", "n_train", "seed"].filter((name) => name === "label" || new Set(harness.data.runs.map((run) => run[name])).size > 1);
  const main = [...headline, "pixel_AUPRO"].filter((name) => metrics.includes(name));
  return {
    main: [...first, "vs_best", ...main, ...["false_alarms_on_test", "false_alarms_expected"].filter(isNumber), ...["ms_per_image_p50", "fit_seconds"].filter((name) => costs.includes(name))],
    "all metrics": [...first, "vs_best", "p_vs_best", "may_be_lower_by", "image_AUROC_low", "image_AUROC_high", ...metrics, "threshold_from", "false_alarms_on_test", "false_alarms_expected", "false_alarms_guarantee"],
    cost: [...first, "image_AUROC", ...costs, "test_seconds", "spent_seconds", "total_seconds", "device"],
    configuration: ["label", "category", ...harness.data.columns, ...harness.data.parameters, "seed", "weights_source", "train_images", "test_images"],
  };
}

// Smaller costs and error rates are better, so their first sort is ascending.
function fallsFirst(name) { return isNumber(name) && !harness.data.falling.includes(name) && (name === "images_per_second" || !harness.data.costs.includes(name) && !/_seconds$|^p_vs|^false_alarms/.test(name)); }

function columns() {
  const set = document.getElementById("columns").value;
  return set === OWN ? table.own : [...new Set(columnSets()[set])];
}

// A box for every column; the first change makes a set of the reader's own.
function drawColumnBoxes() {
  const shownNow = columns();
  const every = [...new Set(Object.values(columnSets()).flat())];
  const box = (name) => el("label", {}, el("input", { type: "checkbox", value: name, checked: shownNow.includes(name), onchange: chooseColumns }), name === "label" ? "configuration" : title(name));
  document.getElementById("boxes").replaceChildren(...every.map(box));
}

function chooseColumns() {
  table.own = [...document.querySelectorAll("#boxes input:checked")].map((input) => input.value);
  const select = document.getElementById("columns");
  if (select.value !== OWN) { if (![...select.options].some((option) => option.value === OWN)) select.append(el("option", { value: OWN }, OWN)); select.value = OWN; }
  drawTable();
}

// The filter searches these columns: words must begin as the filter's words do. "3" finds power 3.0, not 0.3.
const DESCRIBES = ["label", "category", ...harness.data.columns, "vs_best", "weights_source", "threshold_from", "device", "run"];

function visible(rows = harness.data.runs) {
  const words = document.getElementById("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const place = document.getElementById("category").value;
  return rows.filter((run) => {
    if (place && run.category !== place) return false;
    run.words ??= [...DESCRIBES.map((name) => run[name] ?? ""), run.seed == null ? "" : `seed ${run.seed}`].join(" ").toLowerCase().split(/[\s+]+/);
    return words.every((word) => run.words.some((text) => text.startsWith(word)));
  });
}

function sorted(rows) {
  const name = table.sort;
  const sign = table.down ? -1 : 1;
  return [...rows].sort((a, b) => {
    const [x, y] = [a[name], b[name]];
    // Missing values come last in both directions.
    if (x == null || y == null) return (x == null) - (y == null);
    const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), undefined, { numeric: true });
    return sign * order;
  });
}

function isNumber(name) { return harness.data.runs.some((run) => typeof run[name] === "number"); }

function headCell(name) {
  const state = table.sort === name ? (table.down ? "descending" : "ascending") : "none";
  const sort = () => {
    table.down = table.sort === name ? !table.down : fallsFirst(name);
    table.sort = name;
    drawTable();
    document.querySelector(`#runs th[data-name="${CSS.escape(name)}"] button`)?.focus();
  };
  return el("th", { scope: "col", "aria-sort": state, "data-name": name, class: isNumber(name) ? "number" : "" },
    el("button", { type: "button", onclick: sort }, name === "label" ? "configuration" : title(name)));
}

function cell(run, name) {
  if (name === "label") return el("td", { class: "setting" }, el("button", { class: "link", type: "button", "data-run": run.run }, run.label));
  if (name === "vs_best") {
    const marks = [run.vs_best, run.recommended].filter(Boolean);
    return el("td", {}, ...marks.flatMap((mark) => [el("span", { class: "tag " + mark }, mark), " "]));
  }
  const value = el("td", { class: isNumber(name) ? "number" : "" }, shown(name, run[name]));
  if (run[name] != null && busyMark(name, run)) value.append(el("span", { class: "quiet" }, busyMark(name, run)));
  if (name === "false_alarms_expected" && run[name] != null) value.append(el("span", { class: "quiet" }, ` ${run.false_alarms_guarantee}`));
  if (name === "image_AUROC" && run.image_AUROC_low != null) {
    value.append(el("span", { class: "quiet" }, ` ${run.image_AUROC_low.toFixed(2)}\u2013${run.image_AUROC_high.toFixed(2)}`));
  }
  return value;
}

function drawTable() {
  const names = columns();
  const rows = sorted(visible());
  const few = table.all ? rows : rows.slice(0, ROWS);
  document.querySelector("#runs thead").replaceChildren(el("tr", {}, ...names.map(headCell)));
  const row = (run, kind) => el("tr", { class: kind }, ...names.map((name) => cell(run, name)));
  document.getElementById("averages").replaceChildren(...visible(harness.data.averages).map((run) => row(run, "best")));
  const body = document.getElementById("single-runs");
  body.replaceChildren(...few.map((run) => row(run, run.vs_best === "best" ? "best" : "")));
  if (!rows.length) body.append(el("tr", {}, el("td", { colspan: names.length, class: "quiet" }, "No run has all of these words.")));
  document.getElementById("shown").textContent = `${rows.length} of ${harness.data.runs.length} runs`;
  const more = document.getElementById("more");
  more.hidden = few.length === rows.length;
  more.textContent = `Show all ${rows.length}`;
}

function startTable() {
  for (const run of [...harness.data.runs, ...harness.data.averages]) run.dataset = run.setting == null ? null : harness.data.datasets[harness.data.settings[run.setting].dataset];
  choices("category", ["", ...harness.data.categories], "", (name) => name || "all").addEventListener("change", drawTable);
  document.getElementById("category").parentElement.hidden = harness.data.categories.length < 2;
  choices("columns", Object.keys(columnSets()), "main", String).addEventListener("change", () => { drawTable(); drawColumnBoxes(); });
  document.getElementById("filter").addEventListener("input", drawTable);
  document.getElementById("more").addEventListener("click", () => { table.all = true; drawTable(); });
  drawTable();
  drawColumnBoxes();
}
