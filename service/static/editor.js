// Editor: line numbers, highlighting, problems while typing, and protection of unsaved text.
"use strict";

const form = document.getElementById("edit");
const frame = form.querySelector("[data-editor]");
const area = frame.querySelector("textarea");
const paint = frame.querySelector(".paint");
const numbers = frame.querySelector(".numbers");
const list = document.getElementById("problems");
const state = document.getElementById("state");
const csrf = form.elements.csrf.value;
const original = area.value;
const store = `gitstore:${location.pathname}`;
const PLAIN = 150000; // longer texts are not highlighted
const TOKENS = /(#[^\n]*)|("(?:[^"\\\n]|\\.)*"|'(?:[^'\n]|'')*')(\s*:)?|([\w.$/-]+)(?=\s*:(?:\s|$))|\b(true|false|null|-?\d+(?:\.\d+)?)\b(?![\w-])|([{}[\],])/g;
let wrong = new Set();
let leaving = false;

// Highlighting. Only text is added to the page, never markup.
function coloured(text) {
  const fragment = document.createDocumentFragment();
  let at = 0;
  for (const found of text.length > PLAIN ? [] : text.matchAll(TOKENS)) {
    if (found[1] && found.index > 0 && !/\s/.test(text[found.index - 1])) continue; // a # within a word
    const kind = found[1] ? "c" : found[2] ? (found[3] ? "k" : "s") : found[4] ? "k" : found[5] ? "m" : "p";
    const piece = document.createElement("i");
    piece.className = kind;
    piece.textContent = found[0];
    fragment.append(text.slice(at, found.index), piece);
    at = found.index + found[0].length;
  }
  fragment.append(text.slice(at), "\n");
  return fragment;
}

function draw() {
  paint.replaceChildren(coloured(area.value));
  const count = area.value.split("\n").length;
  numbers.replaceChildren();
  for (let line = 1; line <= count; line += 1) {
    const last = line === count ? "" : "\n";
    if (wrong.has(line)) {
      const mark = document.createElement("b");
      mark.textContent = line;
      numbers.append(mark, last);
    } else numbers.append(line + last);
  }
}

// Problems
function item(problem) {
  const row = document.createElement("li");
  const [sign, words, severity, text] = ["span", "span", "span", "span"].map((name) => document.createElement(name));
  sign.className = `sign ${problem.severity}`;
  sign.textContent = problem.severity === "error" ? "!" : "i";
  sign.setAttribute("aria-hidden", "true");
  severity.className = "hidden";
  severity.textContent = `${problem.severity}: `;
  text.className = "user";
  text.textContent = (problem.node ? `${problem.node}: ` : "") + problem.message;
  words.append(severity, text);
  row.append(sign, words);
  if (problem.line) {
    const link = document.createElement("a");
    link.className = "where small nowrap";
    link.href = `#L${problem.line}`;
    link.textContent = `line ${problem.line}`;
    row.append(link);
  }
  return row;
}

function show(found) {
  wrong = new Set(found.problems.map((problem) => problem.line));
  list.replaceChildren(...found.problems.map(item));
  const left = found.problems_total - found.problems.length;
  if (left > 0) {
    const row = document.createElement("li");
    row.className = "muted";
    row.textContent = `and ${left} more`;
    list.append(row);
  }
  if (!found.problems.length) {
    const row = document.createElement("li");
    row.className = "muted";
    row.textContent = "No problems. Ready to publish.";
    list.append(row);
  }
  const errors = found.problems.filter((problem) => problem.severity === "error").length;
  const plus = left > 0 ? "+" : "";
  state.textContent = errors ? `${errors}${plus} problem${errors > 1 ? "s" : ""}` : "valid";
  draw();
}

let asked = 0;
async function check() {
  const mine = ++asked;
  try {
    const answer = await fetch(form.dataset.check, {
      method: "POST", body: area.value, headers: { "Content-Type": "text/plain; charset=utf-8", "X-CSRF-Token": csrf },
    });
    if (mine !== asked) return; // a newer check is under way
    if (answer.ok) show(await answer.json());
    else state.textContent = answer.status === 401 ? "signed out: your changes are kept in this tab" : "check failed";
  } catch {
    if (mine === asked) state.textContent = "no connection: your changes are kept in this tab";
  }
}

// Unsaved text
const isDirty = () => area.value !== original || "unsaved" in form.dataset;
function keep() {
  try {
    if (isDirty()) sessionStorage.setItem(store, area.value);
    else sessionStorage.removeItem(store);
  } catch { /* full, or not allowed: the browser still asks before leaving */ }
}
addEventListener("beforeunload", (event) => {
  if (isDirty() && !leaving) event.preventDefault();
});
addEventListener("pageshow", () => { leaving = false; });
form.addEventListener("submit", () => { keep(); leaving = true; });

function offerKept() {
  const notice = document.getElementById("kept");
  const kept = sessionStorage.getItem(store);
  if (!notice || kept === null || kept === original) {
    if (kept === original) sessionStorage.removeItem(store);
    return;
  }
  notice.hidden = false;
  document.getElementById("restore").addEventListener("click", () => {
    area.value = kept;
    notice.hidden = true;
    changed();
  });
  document.getElementById("forget").addEventListener("click", () => {
    sessionStorage.removeItem(store);
    notice.hidden = true;
  });
}

// Lines
function goTo(hash) {
  const line = Number((/^#L(\d+)$/.exec(hash) || [])[1]);
  if (!line) return;
  const lines = area.value.split("\n");
  const start = lines.slice(0, line - 1).reduce((sum, each) => sum + each.length + 1, 0);
  area.focus({ preventScroll: true });
  area.setSelectionRange(start, start + (lines[line - 1] || "").length);
  frame.scrollTop = (line - 4) * (area.scrollHeight / Math.max(lines.length + 1, 1));
  frame.scrollIntoView({ block: "nearest" });
}
addEventListener("hashchange", () => goTo(location.hash));
list.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#L']");
  if (link && link.hash === location.hash) goTo(link.hash);
});

let waiting;
function changed() {
  draw();
  keep();
  state.textContent = "…";
  clearTimeout(waiting);
  waiting = setTimeout(check, 350);
}
area.addEventListener("input", changed);
addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "s") {
    event.preventDefault();
    form.requestSubmit();
  }
});

frame.classList.add("live");
draw();
check();
offerKept();
goTo(location.hash);
