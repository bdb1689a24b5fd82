// History: keys j, k, Enter and d; older versions load when the end is reached.
"use strict";

const table = document.querySelector("[data-history]");
const rows = () => (table ? [...table.tBodies[0].rows] : []);
let chosen = -1;

function choose(index) {
  const all = rows();
  if (!all.length) return;
  if (all[chosen]) all[chosen].removeAttribute("aria-selected");
  chosen = Math.min(Math.max(index, 0), all.length - 1);
  all[chosen].setAttribute("aria-selected", "true");
  all[chosen].scrollIntoView({ block: "nearest" });
  all[chosen].querySelector("[data-open]").focus({ preventScroll: true });
}

function follow(selector) {
  const link = chosen >= 0 && rows()[chosen].querySelector(selector);
  if (link) location.assign(link.href);
}

const keys = { j: () => choose(chosen + 1), k: () => choose(chosen - 1), d: () => follow("[data-diff]") };
addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
});
// Enter follows the focused link, which is that of the selected row.
if (table) {
  table.addEventListener("focusin", (event) => {
    const index = rows().indexOf(event.target.closest("tr"));
    if (index >= 0 && index !== chosen && event.target.matches("[data-open]")) choose(index);
  });
}

for (const hint of document.querySelectorAll("[data-keys]")) hint.hidden = false;

// Each page of the list holds the rows before, too: the URL then shows as many again, for Back and for sharing.
async function load(link) {
  link.removeAttribute("data-more");
  const answer = await fetch(link.href, { headers: { Accept: "text/html" } });
  if (!answer.ok || answer.redirected) return; // the link still works
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const more = page.querySelector("[data-history] tbody");
  if (!more) return;
  const known = new Set(rows().map((row) => row.id));
  table.tBodies[0].append(...[...more.rows].filter((row) => !known.has(row.id)));
  if (!link.href.includes("cursor=")) history.replaceState(history.state, "", link.href.split("#")[0]);
  const next = page.querySelector("[data-more]");
  link.parentElement.replaceChildren(...(next ? [next] : []));
  watch();
}

function watch() {
  const link = document.querySelector("[data-more]");
  if (!link) return;
  const seen = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    seen.disconnect();
    load(link).catch(() => {});
  }, { rootMargin: "300px" });
  seen.observe(link);
}
watch();
