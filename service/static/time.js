// Times in the reader's zone: alone or beside an age, and both zones on hover.
"use strict";

const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const zoned = new Intl.DateTimeFormat(undefined, { dateStyle: "long", timeStyle: "long" });

function localize(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    if (time.dataset.utc) continue;
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    time.dataset.utc = time.title;
    time.title = `${zoned.format(at)}\n${time.dataset.utc}`;
    if (time.classList.contains("moment")) time.textContent = local.format(at);
    if (time.classList.contains("local")) time.textContent = `${time.textContent} · ${local.format(at)}`;
  }
}
localize(document);
// Rows that a script adds.
new MutationObserver((changes) => {
  for (const change of changes) for (const node of change.addedNodes) if (node.nodeType === 1) localize(node);
}).observe(document.body, { childList: true, subtree: true });

// Fields for a time: typed in the reader's zone, sent in UTC. Without this script they are in UTC.
for (const input of document.querySelectorAll("input[data-zone]")) {
  const shift = (at) => new Date(at.getTime() - at.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
  const given = new Date(`${input.defaultValue}Z`);
  if (!Number.isNaN(given.getTime())) input.value = shift(given);
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  document.getElementById(input.dataset.zone).textContent = `a time in ${zone || "your zone"}; empty: now`;
  input.form.addEventListener("formdata", (event) => {
    const at = new Date(input.value);
    if (!Number.isNaN(at.getTime())) event.formData.set(input.name, at.toISOString());
  });
}
