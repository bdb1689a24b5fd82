// What others do to the workflow while its page is open: asked every 1.5 s, and only while the page is visible.
"use strict";

(() => {
  const place = document.getElementById("live");
  const EVERY = 1500, LONGEST = 60000, MOST = 3;
  let since = place.dataset.since;
  let wait = EVERY;
  let timer;
  let asking = false;

  function tell({ text, url, link }) {
    const line = document.createElement("p");
    const words = document.createElement("span");
    const target = document.createElement("a");
    const close = document.createElement("button");
    target.href = url;
    target.textContent = link;
    words.append(`${text} · `, target);
    close.type = "button";
    close.className = "link";
    close.textContent = "✕";
    close.setAttribute("aria-label", "Dismiss");
    close.addEventListener("click", () => line.remove());
    line.append(words, close);
    place.append(line);
    while (place.children.length > MOST) place.firstElementChild.remove();
  }

  async function ask() {
    asking = true;
    try {
      const answer = await fetch(`${place.dataset.changes}?since=${encodeURIComponent(since)}`, {
        cache: "no-store", redirect: "manual", headers: { Accept: "application/json" }, signal: AbortSignal.timeout(10000),
      });
      if (answer.ok) {
        const { token, changes } = await answer.json();
        since = token;
        changes.forEach(tell);
        if (changes.length) dispatchEvent(new CustomEvent("gitstore:changed", { detail: { changes } }));
      } else if (answer.status !== 304 && answer.status !== 429 && answer.status < 500) {
        return; // signed out, or the workflow is gone: the next click shows that
      }
      wait = answer.ok || answer.status === 304 ? EVERY : Math.min(wait * 2, LONGEST);
    } catch {
      wait = Math.min(wait * 2, LONGEST);
    } finally {
      asking = false;
    }
    next(wait);
  }

  function next(delay) {
    clearTimeout(timer);
    if (document.visibilityState === "visible") timer = setTimeout(ask, delay);
  }

  document.addEventListener("visibilitychange", () => {
    wait = EVERY;
    if (!asking) next(0);
  });
  if (since) next(EVERY);
  else next(0);
})();
