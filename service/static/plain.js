// What is typed into the plain form of a definition is kept on the server for its author alone, a moment after the
// last change. Where the visual editor runs, it does that itself.
"use strict";

(() => {
  const AFTER = 2000, AGAIN = 5000;
  const form = document.querySelector("form[data-autosave]");
  const area = form.elements.definition;
  const told = form.querySelector(".autosaved");
  let timer;
  let savedAt = null;
  let isKept = true; // all that was typed is
  let isOver = false;

  const isPlain = () => !area.closest("[hidden]");

  function ago(at) {
    const seconds = Math.max(0, Math.round((Date.now() - at) / 1000));
    if (seconds < 60) return `${seconds} s ago`;
    return new Intl.RelativeTimeFormat("en").format(-Math.floor(seconds / 60), "minute");
  }

  function show(text = savedAt === null ? "" : `Saved · ${ago(savedAt)}`) {
    told.textContent = text;
  }

  /** Keep no more by itself, and say why. */
  function stop(text, link) {
    isOver = true;
    show("");
    const line = document.createElement("p");
    const notice = document.createElement("div");
    line.textContent = `${text} `;
    if (link) line.append(Object.assign(document.createElement("a"), { ...link, target: "_blank" }));
    notice.className = "notice warn";
    notice.setAttribute("role", "alert");
    notice.append(line);
    form.prepend(notice);
  }

  async function keep() {
    if (!isPlain()) return; // the editor has taken over
    const fields = new URLSearchParams(new FormData(form));
    isKept = true;
    try {
      const answer = await fetch(form.dataset.autosave, {
        method: "PUT", body: fields, headers: { Accept: "application/json", "X-CSRF-Token": form.elements.csrf.value },
      });
      if (answer.ok) {
        const row = await answer.json();
        savedAt = Date.parse(row.saved_at);
        for (const name of ["began", "etag"]) form.elements[name].value = row[name];
        show();
        if (row.conflict) stop("The workflow has changed since you began to edit. Saving shows both changes and merges them.");
        return;
      }
      isKept = false;
      if (answer.status === 401 || answer.status === 403) {
        stop("You're signed out, and changes are not kept any more. Sign in, then copy your text into the editor there:", { href: form.dataset.signIn, textContent: "Sign in" });
      } else if (answer.status < 500 && answer.status !== 429) {
        const { detail } = await answer.json().catch(() => ({}));
        stop(`Changes are not kept by themselves${detail ? `: ${detail}` : ""}.`);
      } else throw new Error(`answer ${answer.status}`);
    } catch {
      isKept = false;
      show("Not saved: no answer from the server");
      clearTimeout(timer);
      timer = setTimeout(keep, AGAIN);
    }
  }

  function typed() {
    if (!isPlain()) return;
    isKept = false;
    clearTimeout(timer);
    if (!isOver) timer = setTimeout(keep, AFTER);
  }

  form.addEventListener("input", typed);
  if (area.value !== area.defaultValue.replaceAll(/\r\n?/g, "\n")) typed(); // before this script was loaded
  form.addEventListener("submit", () => {
    isKept = true;
    clearTimeout(timer);
  });
  addEventListener("beforeunload", (event) => {
    if (!isKept && isPlain()) event.preventDefault();
  });
  setInterval(() => savedAt !== null && !isOver && isKept && show(), 1000);
})();
