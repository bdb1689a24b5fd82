// Copies of unsaved text and message in this browser, by project, workflow, base and editor. So neither two tabs nor a
// text that is offered and a new one overwrite each other.
const PREFIX = "gitstore:draft:";
const LONGEST = 30 * 24 * 3600 * 1000;

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

export function forget(key) {
  try {
    localStorage.removeItem(key);
  } catch {
    // not allowed: then nothing was kept
  }
}

/** Remove all copies of this browser, at a sign-out. */
export function forgetAll() {
  try {
    for (const { key } of entries(PREFIX)) forget(key);
  } catch {
    // not allowed
  }
}

/** The copies of one workflow. */
export class Copies {
  #start;
  #editor = crypto.randomUUID?.() ?? String(Math.random()).slice(2);
  #own = null; // the key of this editor's copy

  constructor(project, workflow) {
    this.#start = `${PREFIX}${project}:${workflow}:`;
  }

  /** Keep a copy of this editor's text, message, and what its author has `seen`; return whether the browser took it. */
  keep(base, copy) {
    const key = `${this.#start}${base}:${this.#editor}`;
    try {
      localStorage.setItem(key, JSON.stringify({ ...copy, at: Date.now() }));
    } catch {
      return false; // full, or not allowed
    }
    if (key !== this.#own) this.forgetOwn();
    this.#own = key;
    return true;
  }

  forgetOwn() {
    if (this.#own !== null) forget(this.#own);
    this.#own = null;
  }

  /** Return the copies of other editors that differ from what is shown, newest first. Old ones are forgotten. */
  offered(text, message) {
    try {
      for (const { key, at } of entries(PREFIX)) if (!(Date.now() - at < LONGEST)) forget(key);
      return entries(this.#start)
        .filter((copy) => {
          const same = copy.text === text && copy.message === message;
          if (same && copy.key !== this.#own) forget(copy.key);
          return !same && copy.key !== this.#own;
        })
        .sort((one, other) => other.at - one.at);
    } catch {
      return [];
    }
  }
}
