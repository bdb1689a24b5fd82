// Zoom and pan of a graph, by its viewBox; a link to a node centres it.
"use strict";

const SMALLEST = 120; // minimum width shown, in units of the drawing

// The left edge and the middle of a box, in units of the drawing.
function place(box) {
  const at = box.transform.baseVal.consolidate().matrix;
  const card = box.querySelector(".card");
  return { x: at.e, y: at.f + card.height.baseVal.value / 2, width: card.width.baseVal.value };
}

function makeLive(frame) {
  const svg = frame.querySelector("svg.drawing");
  const whole = svg.getAttribute("viewBox").split(" ").map(Number);
  let view = [...whole];

  function show(next) {
    const most = Math.max(whole[2], whole[3]) * 3;
    const factor = Math.min(Math.max(next[2], SMALLEST), most) / next[2];
    view = [next[0], next[1], next[2] * factor, next[3] * factor];
    svg.setAttribute("viewBox", view.map((number) => Math.round(number * 10) / 10).join(" "));
  }

  // `x` and `y` are the fixed point, as fractions of the drawing's width and height.
  function zoom(factor, x = 0.5, y = 0.5) {
    const [left, top, width, height] = view;
    show([left + width * x * (1 - factor), top + height * y * (1 - factor), width * factor, height * factor]);
  }

  const move = (x, y) => show([view[0] + view[2] * x, view[1] + view[3] * y, view[2], view[3]]);

  function centre(box) {
    const at = place(box);
    // Readable: a node of 212 units takes at least 150 pixels.
    const width = Math.min(view[2], Math.max((svg.clientWidth || 640) * 1.4, SMALLEST));
    const height = (view[3] / view[2]) * width;
    show([at.x + at.width / 2 - width / 2, at.y - height / 2, width, height]);
  }

  function units(event) {
    const inverse = svg.getScreenCTM().inverse();
    return new DOMPoint(event.clientX, event.clientY).matrixTransform(inverse);
  }

  let grip = null;
  svg.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    grip = units(event);
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    if (!grip) return;
    const at = units(event);
    show([view[0] + grip.x - at.x, view[1] + grip.y - at.y, view[2], view[3]]);
  });
  for (const name of ["pointerup", "pointercancel"]) svg.addEventListener(name, () => { grip = null; });

  // The wheel scrolls the page; with Ctrl, or by pinching, it zooms the graph.
  svg.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const area = svg.getBoundingClientRect();
    zoom(Math.exp(event.deltaY / 300), (event.clientX - area.x) / area.width, (event.clientY - area.y) / area.height);
  }, { passive: false });

  const keys = {
    "+": () => zoom(0.8), "=": () => zoom(0.8), "-": () => zoom(1.25), "0": () => show([...whole]),
    ArrowLeft: () => move(-0.1, 0), ArrowRight: () => move(0.1, 0), ArrowUp: () => move(0, -0.1), ArrowDown: () => move(0, 0.1),
  };
  svg.addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.target !== svg || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
  });

  // One stop of the tab key for the graph; from there, the arrow keys go from node to node, and Escape back. With
  // Shift they move the view.
  const boxes = [...svg.querySelectorAll(".box")];
  for (const box of boxes) box.setAttribute("tabindex", "-1");
  function neighbour(from, key) {
    const at = place(from);
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
    let best = null;
    let least = Infinity;
    for (const box of boxes) {
      const to = place(box);
      const [along, across] = [(to.x - at.x) * dx + (to.y - at.y) * dy, Math.abs((to.x - at.x) * dy) + Math.abs((to.y - at.y) * dx)];
      if (along > 0 && along + 3 * across < least) [best, least] = [box, along + 3 * across];
    }
    return best;
  }
  svg.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || !boxes.length) return;
    const box = event.target.closest(".box");
    let next = null;
    if (event.key === "Escape" && box) next = svg;
    else if (event.key === "Enter" && !box) next = boxes.reduce((a, b) => (place(b).x < place(a).x ? b : a));
    else if (box && event.key.startsWith("Arrow")) next = neighbour(box, event.key) || box;
    if (!next) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    next.focus({ preventScroll: true });
    if (next !== svg) centre(next);
  }, { capture: true });

  const bar = document.createElement("div");
  bar.className = "zoom";
  for (const [text, label, act] of [["+", "Zoom in", keys["+"]], ["−", "Zoom out", keys["-"]], ["Fit", "Fit the whole graph", keys["0"]]]) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "button";
    button.textContent = text;
    button.setAttribute("aria-label", label);
    button.addEventListener("click", act);
    bar.append(button);
  }
  frame.append(bar);
  // If the whole graph would be too small to read, show its beginning first.
  if (Math.min(svg.clientWidth / whole[2], svg.clientHeight / whole[3]) < 0.55) {
    const first = [...svg.querySelectorAll(".box")].map(place).reduce((a, b) => (b.x < a.x ? b : a), { x: Infinity, y: 0 });
    const width = svg.clientWidth / 0.8;
    const height = (svg.clientHeight / svg.clientWidth) * width;
    if (first.x < Infinity) show([first.x - 24, first.y - height / 2, width, height]);
  }
  svg.setAttribute("tabindex", "0");
  svg.classList.add("live");
  return centre;
}

const centres = new Map();
for (const frame of document.querySelectorAll(".graph")) centres.set(frame, makeLive(frame));

function showTarget() {
  const box = document.getElementById(location.hash.slice(1));
  const frame = box && box.closest(".graph");
  if (!frame) return;
  centres.get(frame)(box);
  frame.scrollIntoView({ block: "center" });
}
addEventListener("hashchange", showTarget);
showTarget();
