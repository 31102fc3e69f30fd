// Two configurations on the same test image: results of all images, and the pictures that the runs kept.
const SIDE = ["side-first", "side-second", "side-category", "side-image"];

// The run of a configuration on a category; of several seeds the best one.
function runOn(position, category) {
  const runs = harness.data.runs.filter((run) => run.setting === position && run.category === category);
  return runs.reduce((best, run) => (best && (best.image_AUROC ?? -1) >= (run.image_AUROC ?? -1) ? best : run), null);
}

function resultOf(details, index) {
  const at = details.thresholds.image;
  if (at == null) return "no threshold";
  const alarm = details.scores[index] > at;
  if (details.labels[index]) return alarm ? "found" : "missed";
  return alarm ? "false alarm" : "normal";
}

// The images that both runs tested: those with different results first, then those with pictures of both, then defects.
function sharedImages(first, second) {
  const [a, b] = [first, second].map((details) => new Map(details.names.map((name, index) => [name, index])));
  const kept = [first, second].map((details) => new Map((details.gallery ?? []).map((one) => [one.name, one])));
  const images = [...a.keys()].filter((name) => b.has(name)).map((name) => ({
    name, label: first.labels[a.get(name)], pictures: kept.map((pictures) => pictures.get(name)),
    results: [resultOf(first, a.get(name)), resultOf(second, b.get(name))], scores: [first.scores[a.get(name)], second.scores[b.get(name)]],
  }));
  const order = (image) => (image.results[0] === image.results[1] ? 8 : 0) - 2 * image.pictures.filter(Boolean).length - (image.label ? 1 : 0);
  return images.sort((x, y) => order(x) - order(y));
}

function countsOf(images) {
  const defects = images.filter((image) => image.label && !image.results.includes("no threshold"));
  if (!defects.length) return "";
  const count = (first, second) => defects.filter(({ results }) => results[0] === first && results[1] === second).length;
  return `Of ${defects.length} defects, both find ${count("found", "found")}, only the first finds ${count("found", "missed")}, only the second finds ${count("missed", "found")}, and both miss ${count("missed", "missed")}.`;
}

function imageName({ name, results }) { return `${name}: ${[...new Set(results)].join(" / ")}`; }

function sidePicture(run, details, image, position) {
  const [one, result] = [image.pictures[position], image.results[position]];
  const head = el("h3", {}, el("button", { class: "link", type: "button", "data-run": run.run }, run.label));
  const role = result.replaceAll(" ", "-");
  if (one && !harness.data.single) return el("div", {}, head, picture(run.folder, details.thresholds.image, { ...one, role }));
  const text = harness.data.single ? "Pictures are in the result folder, and not in this file." : "This run kept no picture of this image.";
  return el("div", {}, head, el("p", {}, el("span", { class: "tag " + role }, result), ` ${image.name}, score ${image.scores[position].toPrecision(3)}`), el("p", { class: "quiet" }, text));
}

let sideTurn = 0;

// `sameList`: whether the list of images is kept.
async function drawSide(sameList = false) {
  const turn = ++sideTurn;
  const [first, second, category, selected] = SIDE.map((id) => document.getElementById(id).value);
  const runs = [first, second].map((position) => runOn(Number(position), category));
  const details = await Promise.all(runs.map((run) => run && load(run.run)));
  // A later choice overtook this one.
  if (turn !== sideTurn) return;
  const [target, counts] = ["side-pictures", "side-counts"].map((id) => document.getElementById(id));
  if (!details[0] || !details[1]) {
    counts.textContent = runs[0] && runs[1] ? "The details of a run are missing: send the whole folder along with report.html." : "One of the two has no run on this category.";
    target.replaceChildren();
    return;
  }
  const images = sharedImages(...details);
  counts.textContent = images.length ? countsOf(images) : "The two runs tested no common image.";
  // At first one with pictures of both, where there is one.
  const image = images.find(({ name }) => sameList && name === selected) ?? images.find(({ pictures }) => pictures.every(Boolean)) ?? images[0];
  if (!sameList) choices("side-image", images.map(({ name }) => name), image?.name, (name) => imageName(images.find((one) => one.name === name)));
  target.replaceChildren(...(image ? runs.map((run, position) => sidePicture(run, details[position], image, position)) : []));
}

// At first the recommended configuration, and the best one of another model.
function fillSide() {
  const { settings, runs, leaders } = harness.data;
  const positions = here().map((configuration) => settings.indexOf(configuration));
  const chosen = positions.find((position) => runs.some((run) => run.setting === position && run.recommended)) ?? positions[0];
  const others = positions.filter((position) => position !== chosen);
  const rival = others.find((position) => leaders.includes(settings[position].run)) ?? others[0] ?? chosen;
  for (const [id, position] of [["side-first", chosen], ["side-second", rival]]) choices(id, positions.map(String), String(position), (name) => settings[name].name);
  choices("side-category", categoriesHere(), "", String);
}

function startSide() {
  fillSide();
  for (const id of SIDE) document.getElementById(id).addEventListener("change", () => drawSide(id === "side-image"));
  document.getElementById("dataset").addEventListener("change", () => { fillSide(); drawSide(); });
  // The details of two runs load when the reader comes near.
  new IntersectionObserver((entries, observer) => { if (entries.some((entry) => entry.isIntersecting)) { observer.disconnect(); drawSide(); } }, { rootMargin: "300px" }).observe(document.getElementById("side"));
}
