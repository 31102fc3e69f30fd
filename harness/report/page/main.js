// The table first, then the plots one after the other, so that the page reacts at once.
function start() {
  for (const element of document.querySelectorAll("[data-needs]")) element.hidden = !harness.data[element.dataset.needs].length;
  document.addEventListener("click", (event) => { const run = event.target.closest?.("[data-run]")?.dataset.run; if (run) openRun(run); });
  const dialog = document.getElementById("run");
  document.getElementById("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", closeRun);
  dialog.addEventListener("click", (event) => {
    const box = dialog.getBoundingClientRect();
    const inside = event.clientX >= box.left && event.clientX <= box.right && event.clientY >= box.top && event.clientY <= box.bottom;
    if (event.target === dialog && !inside) dialog.close();
  });
  addEventListener("popstate", () => {
    if (history.state?.run) openRun(history.state.run, false);
    else if (dialog.open) dialog.close();
  });
  fadeTables();
  if (!harness.data.runs.length) { document.body.dataset.ready = "true"; return; }
  drawCases();
  startTable();
  const drawn = [...searchPlots(), ...startPlots()];
  if (harness.data.pairs.length) startSide();
  const plots = async () => {
    for (const one of drawn) await one();
    document.body.dataset.ready = "true";
    const linked = location.hash.match(/^#run=(.+)$/);
    if (linked) openRun(decodeURIComponent(linked[1]), false);
  };
  // Plotly's script is deferred: if present, it has run by now.
  plots();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { for (const one of drawn) one(); });
}
document.addEventListener("DOMContentLoaded", start);
