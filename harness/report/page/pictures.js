// Pictures of test images: four panels in one file, which the page shows one beside the other, each with its name below.
const PANELS = ["image", "anomaly map", "mask", "predicted outline"];

// `folder`: of the run; `at`: its threshold, or null.
function picture(folder, at, one) {
  const file = folder + one.file.split("/").map(encodeURIComponent).join("/");
  const panels = PANELS.map((name, i) => {
    const panel = el("div", { role: "img", "aria-label": `${name} of ${one.name}`, title: name });
    panel.style.backgroundImage = `url("${file}")`;
    panel.style.backgroundPosition = `${(100 * i) / (PANELS.length - 1)}% 0`;
    panel.style.aspectRatio = `${one.width / PANELS.length} / ${one.height}`;
    return el("div", {}, panel, el("span", { class: "quiet", "aria-hidden": "true" }, name));
  });
  const threshold = at == null ? "" : `, threshold ${at.toPrecision(3)}`;
  return el("figure", {}, el("figcaption", {}, el("span", { class: "tag " + one.role }, one.role.replaceAll("-", " ")), ` ${one.name} (${one.defect}), score ${one.score.toPrecision(3)}${threshold}`),
    el("div", { class: "strip" }, ...panels));
}

// A found and a missed defect of each recommended configuration.
function drawCases() {
  for (const target of document.querySelectorAll("[data-answer]")) {
    const { pictures, note } = harness.data.pictures[target.dataset.answer];
    const shown = harness.data.single ? [] : pictures;
    const figures = shown.map((one) => picture(one.folder, one.threshold, { ...one, name: harness.data.categories.length > 1 ? `${one.category} ${one.name}` : one.name }));
    const kept = pictures.length > shown.length ? "Pictures are in the result folder, and not in this file." : "";
    target.replaceChildren(...figures, ...[note, kept].filter(Boolean).map((text) => el("p", { class: "quiet" }, text)));
  }
}
