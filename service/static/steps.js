// Buttons and the keys n and p that go to the next and the previous change of a text.
"use strict";

const lines = [...document.querySelectorAll("[data-changes] tr")];
const firsts = lines.filter((row, index) => row.matches(".differs") && !(lines[index - 1] || row.parentElement).matches(".differs"));
let at = -1;

function step(by) {
  if (!firsts.length) return;
  at = at < 0 && by < 0 ? firsts.length - 1 : (at + by + firsts.length) % firsts.length;
  for (const row of firsts) row.removeAttribute("tabindex");
  firsts[at].setAttribute("tabindex", "-1");
  firsts[at].scrollIntoView({ block: "center" });
  firsts[at].focus({ preventScroll: true });
}

for (const bar of document.querySelectorAll("[data-steps]")) bar.hidden = firsts.length < 2;
for (const button of document.querySelectorAll("[data-step]")) button.addEventListener("click", () => step(Number(button.dataset.step)));
addEventListener("keydown", (event) => {
  if (event.target.closest("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "n") step(1);
  if (event.key === "p") step(-1);
});
