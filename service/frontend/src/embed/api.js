// The HTTP API for one workflow, with its user's token.
const EVERY = 2000; // milliseconds between questions what has changed
const LONGEST = 30_000;

export class ApiError extends Error {
  constructor(status, { code = "", detail, problems = [] } = {}) {
    super(sentence(detail ?? (status ? `The server answered ${status}.` : "No connection to the server.")));
    Object.assign(this, { status, code, problems });
  }
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? "" : ".");

export class Api {
  #getToken;
  #role;
  #kinds;
  #followers = new Set();
  #seen;
  #timer;
  #wait = EVERY;

  constructor({ server, project, workflow, getToken }) {
    Object.assign(this, { server, project, workflow });
    this.#getToken = getToken;
  }

  /** Return the answer's JSON, or its text for another type. Throws ApiError. */
  async call(method, path, options) {
    const answer = await this.#answer(method, path, options);
    if (answer.status === 204) return null;
    return /json/.test(answer.headers.get("Content-Type") ?? "") ? answer.json() : answer.text();
  }

  /** Call a path of the workflow. */
  of(method, path, options) {
    return this.call(method, `/workflows/${encodeURIComponent(this.workflow)}${path}`, options);
  }

  /** Return the stored bytes of a version as text, and its ETag. */
  async file(version) {
    const path = `/workflows/${encodeURIComponent(this.workflow)}/versions/${version}/definition`;
    const answer = await this.#answer("GET", path, { headers: { Accept: "application/yaml, */*" } });
    return { text: await answer.text(), etag: answer.headers.get("ETag") };
  }

  async #answer(method, path, { body, type = "application/json", headers = {}, query = {} } = {}) {
    const url = new URL(this.server + path);
    for (const [name, value] of Object.entries({ project: this.project, ...query })) if (value) url.searchParams.set(name, value);
    const sent = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
    const send = async (reason) => {
      const token = await this.#getToken(reason);
      try {
        return await fetch(url, {
          method, body: sent, credentials: "omit", cache: "no-cache",
          headers: { Authorization: `Bearer ${token}`, ...(sent === undefined ? {} : { "Content-Type": type }), ...headers },
        });
      } catch {
        throw new ApiError(0);
      }
    };
    let answer = await send({ expired: false });
    if (answer.status === 401) answer = await send({ expired: true });
    if (!answer.ok && answer.status !== 304) throw new ApiError(answer.status, await answer.json().catch(() => ({})));
    return answer;
  }

  /** Return the role of the user in the project. */
  role(project) {
    this.#role ??= this.call("GET", `/projects/${encodeURIComponent(project)}`).then(({ role }) => role).catch((error) => {
      this.#role = undefined;
      throw error;
    });
    return this.#role;
  }

  /** Return the kinds of nodes with their settings. */
  kinds() {
    this.#kinds ??= fetch(`${this.server}/embed/kinds.json`, { credentials: "omit" }).then((answer) => answer.json()).then(({ kinds }) => kinds);
    return this.#kinds;
  }

  // Changes of others

  /** Call `changed` after each change of the workflow; the function that is returned ends it. */
  follow(changed) {
    this.#followers.add(changed);
    if (this.#followers.size === 1) this.#ask();
    return () => {
      this.#followers.delete(changed);
      if (!this.#followers.size) clearTimeout(this.#timer);
    };
  }

  /** Tell all elements of the workflow that one of them changed it. */
  changed() {
    for (const changed of this.#followers) changed();
  }

  async #ask() {
    clearTimeout(this.#timer);
    try {
      if (!document.hidden) {
        const path = `/workflows/${encodeURIComponent(this.workflow)}/changes`;
        const answer = await this.#answer("GET", path, { query: { since: this.#seen } });
        if (answer.status !== 304) {
          const { token } = await answer.json();
          const known = this.#seen;
          this.#seen = token;
          if (known !== undefined && known !== token) this.changed();
        }
        this.#wait = EVERY;
      }
    } catch (error) {
      if ([401, 403, 404].includes(error.status)) return; // each element shows it
      this.#wait = Math.min(this.#wait * 2, LONGEST);
    }
    clearTimeout(this.#timer);
    if (this.#followers.size) this.#timer = setTimeout(() => this.#ask(), this.#wait);
  }
}

const apis = new Map();

/** Return the one Api of these settings, which all elements of a page share. */
export function apiOf(settings) {
  const key = JSON.stringify([settings.server, settings.project, settings.workflow]);
  const known = apis.get(key);
  if (known?.getToken === settings.getToken) return known.api;
  const api = new Api(settings);
  apis.set(key, { api, getToken: settings.getToken });
  return api;
}

const FORMAT = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const UNITS = [["year", 31_557_600], ["month", 2_629_800], ["day", 86_400], ["hour", 3600], ["minute", 60]];

/** Return an age such as "3 hours ago". */
export function ago(time) {
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  const [unit, size] = UNITS.find(([, size]) => seconds >= size) ?? [];
  return unit ? FORMAT.format(-Math.floor(seconds / size), unit) : "just now";
}

/** Return the display name of a person, as the pages show it: without what kind of person it is. */
export const person = (name) => name.replace(/^(token|source|operator):(?=.)/, "");

const RANKS = ["viewer", "editor", "publisher", "owner"];
/** Return whether a role includes the rights of `least`. */
export const may = (role, least) => RANKS.indexOf(role) >= RANKS.indexOf(least);
