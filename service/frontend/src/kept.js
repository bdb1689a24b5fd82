// Copies of unsaved text and message in this browser, by project, workflow, base and page load. So neither two
// tabs nor a text that is offered and a new one overwrite each other.
const PREFIX = "gitstore:draft:";
const LONGEST = 30 * 24 * 3600 * 1000;
const page = crypto.randomUUID?.() ?? String(Math.random()).slice(2);

const start = (form) => `${PREFIX}${form.dataset.project}:${form.dataset.slug}:`;
export const base = (form) => form.elements.etag.value || `v${form.elements.base.value}`;
const SEEN = ["etag", "base", "began"];
/** Return the state of the workflow that the author of the text has seen. */
const seen = (form) => Object.fromEntries(SEEN.filter((name) => form.elements[name]).map((name) => [name, form.elements[name].value]));
const own = (form) => `${start(form)}${base(form)}:${page}`;

function entries(prefix) {
  const found = [];
  for (let index = 0; index < localStorage.length; index += 1) {
    const key = localStorage.key(index);
    if (!key.startsWith(prefix)) continue;
    try {
      found.push({ key, ...JSON.parse(localStorage.getItem(key)) });
    } catch {
      found.push({ key, at: 0 });
    }
  }
  return found;
}

/** Let the form say what the author of a copy has seen, so that saving merges what others did since. */
export function restoreSeen(form, copy) {
  for (const name of SEEN) if (form.elements[name] && name in (copy.seen ?? {})) form.elements[name].value = copy.seen[name];
}

/** Keep a copy; return whether the browser took it. */
export function keep(form, text, message) {
  try {
    localStorage.setItem(own(form), JSON.stringify({ text, message, seen: seen(form), at: Date.now() }));
    return true;
  } catch {
    return false; // full, or not allowed
  }
}

export function forget(key) {
  try {
    localStorage.removeItem(key);
  } catch {
    // not allowed: then nothing was kept
  }
}

export const forgetOwn = (form) => forget(own(form));

/** Remove all copies of this browser, at a sign-out. */
export function forgetAll() {
  try {
    for (const { key } of entries(PREFIX)) forget(key);
  } catch {
    // not allowed
  }
}

/** Return the copies of this workflow that differ from what is shown, newest first. Old ones are forgotten. */
export function offered(form, text, message) {
  try {
    for (const { key, at } of entries(PREFIX)) if (!(Date.now() - at < LONGEST)) forget(key);
    return entries(start(form))
      .filter((copy) => {
        const same = copy.text === text && copy.message === message;
        if (same && copy.key !== own(form)) forget(copy.key);
        return !same && copy.key !== own(form);
      })
      .sort((one, other) => other.at - one.at);
  } catch {
    return [];
  }
}
