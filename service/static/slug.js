// A slug that follows the name until the user types one.
"use strict";

for (const name of document.querySelectorAll("[data-names]")) {
  const slug = document.getElementById(name.dataset.names);
  const made = (text) => text.normalize("NFKD").replace(/[\u0300-\u036f]/g, "").toLowerCase()
    .replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 63).replace(/-+$/, "");
  let last = made(name.value);
  name.addEventListener("input", () => {
    if (slug.value !== "" && slug.value !== last) return;
    last = made(name.value);
    slug.value = last;
  });
}
