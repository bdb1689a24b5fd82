// The draft of the edit page: its form is what is sent; copies of what is not saved are kept in this browser, and on
// the server for its author alone.
import { Draft, sentence } from "./draft.svelte.js";
import * as kept from "./kept.js";
import ParseWorker from "./parse.worker.js?worker";

const KEEP_AFTER = 300; // milliseconds without a key
const AUTOSAVE_AFTER = 2000;
const SEEN = ["etag", "base", "began"];

export class FormDraft extends Draft {
  constructor(form) {
    const area = form.querySelector("textarea[name=definition]");
    const isTyped = area.value !== area.defaultValue.replaceAll(/\r\n?/g, "\n"); // before this script was loaded
    super({ text: area.value, kinds: JSON.parse(form.dataset.kinds), worker: new ParseWorker(), nonce: form.dataset.nonce });
    this.form = form;
    this.area = area;
    this.message = form.elements.message;
    this.firstMessage = this.message.value;
    this.unsaved = "refused" in form.dataset || isTyped;
    this.kept = new kept.Copies(form.dataset.project, form.dataset.slug);
    this.copies = this.kept.offered(this.original, this.firstMessage);
    this.autosaves = Boolean(form.elements.began);
    if (this.autosaves) this.#offerAutosaves();
    this.#listen();
    if (isTyped) this.touched();
  }

  get fragment() {
    return location.hash;
  }

  get isDirty() {
    return this.unsaved || this.message.value !== this.firstMessage || this.text !== this.original;
  }

  /** Leave the form to itself. */
  close() {
    this.done = true;
    clearTimeout(this.autosaveTimer);
    this.listening.abort();
  }

  #listen() {
    this.listening = new AbortController();
    const { signal } = this.listening;
    const addEventListener = (name, act, target = window) => target.addEventListener(name, act, { signal });
    addEventListener("input", () => this.touched(), this.message);
    addEventListener("submit", (event) => {
      event.preventDefault();
      this.save();
    }, this.form);
    addEventListener("keydown", (event) => {
      if (!(event.ctrlKey || event.metaKey) || event.key !== "s") return;
      event.preventDefault();
      this.form.requestSubmit();
    });
    addEventListener("pagehide", () => this.#keep());
    addEventListener("visibilitychange", () => document.hidden && this.#keep());
    addEventListener("beforeunload", (event) => {
      const isKept = !this.isDirty || this.#keep();
      if (!isKept || (this.typing.size && !this.done)) event.preventDefault(); // the browser asks
    });
    addEventListener("hashchange", () => this.goTo(location.hash));
    const signOut = document.querySelector("form[action$='/ui/sign-out']");
    if (signOut) addEventListener("submit", () => {
      this.signingOut = true;
      kept.forgetAll();
    }, signOut);
  }

  // Kept copies

  touched() {
    clearTimeout(this.autosaveTimer);
    if (this.autosaves) this.autosaveTimer = setTimeout(() => this.#autosaveNow(), AUTOSAVE_AFTER);
    clearTimeout(this.keepTimer);
    this.keepTimer = setTimeout(() => this.#keep(), KEEP_AFTER);
  }

  /** Keep a copy of what is not saved; return whether that worked. */
  #keep() {
    clearTimeout(this.keepTimer);
    if (this.done || this.signingOut) return true;
    if (this.isDirty) {
      const { etag, base } = this.form.elements;
      return this.kept.keep(etag.value || `v${base.value}`, { text: this.text, message: this.message.value, seen: this.#seen() });
    }
    this.kept.forgetOwn();
    return true;
  }

  /** Return the state of the workflow that the author of the text has seen. */
  #seen() {
    return Object.fromEntries(SEEN.filter((name) => this.form.elements[name]).map((name) => [name, this.form.elements[name].value]));
  }

  restore(copy) {
    // What its author has seen, so that saving merges what others did since.
    for (const name of SEEN) if (this.form.elements[name] && name in (copy.seen ?? {})) this.form.elements[name].value = copy.seen[name];
    this.replace(copy.text);
    this.message.value = copy.message;
    this.unsaved = true;
    if (this.#keep() && copy.key) kept.forget(copy.key);
    this.copies = this.copies.filter((other) => other !== copy);
  }

  discard(copy) {
    if (copy.key) kept.forget(copy.key);
    else this.#autosave("DELETE", `?began=${encodeURIComponent(copy.seen.began)}`).catch(() => {});
    this.copies = this.copies.filter((other) => other !== copy);
  }

  isOnOlderBase(copy) {
    return copy.seen?.etag !== this.form.elements.etag.value || copy.seen?.base !== this.form.elements.base.value;
  }

  // Autosaves: what is not saved yet, on the server, for its author alone

  async #autosave(method, query = "", body = undefined) {
    const answer = await fetch(this.form.action.replace(/\/edit$/, "/autosave") + query, {
      method, body, headers: { Accept: "application/json", "X-CSRF-Token": this.form.elements.csrf.value },
    });
    if (answer.status === 401 || answer.status === 403) this.notice = this.#signedOut();
    return answer.ok && answer.status !== 204 ? answer.json() : null;
  }

  async #offerAutosaves() {
    try {
      const { autosaves } = (await this.#autosave("GET")) ?? { autosaves: [] };
      const known = (text) => text === this.original || this.copies.some((copy) => copy.text === text);
      const more = autosaves.filter(({ definition }) => !known(definition)).map(({ definition, message, saved_at: at, began, etag, base }) =>
        ({ text: definition, message, at: Date.parse(at), seen: { began, etag, base: String(base) } }));
      this.copies = [...this.copies, ...more].sort((one, other) => other.at - one.at);
    } catch {
      // no connection: the copies of this browser are offered
    }
  }

  async #autosaveNow() {
    if (!this.isDirty || this.done || this.saving) return;
    const text = this.text;
    const fields = new FormData(this.form);
    fields.set("definition", text);
    try {
      const answer = await this.#autosave("PUT", "", new URLSearchParams(fields));
      if (!answer) return;
      this.savedAt = Date.parse(answer.saved_at);
      for (const name of ["began", "etag"]) this.form.elements[name].value = answer[name];
      if (answer.conflict) {
        this.autosaves = false;
        this.notice = { text: "The workflow has changed since you began to edit. Saving shows both changes and merges them." };
      }
    } catch {
      this.savedAt = null;
    }
  }

  // The server

  check(text) {
    return this.#ask(this.form.dataset.check, text, "text/plain; charset=utf-8");
  }

  patch(text, patch) {
    return this.#ask(this.form.dataset.patch, JSON.stringify({ text, patch }), "application/json");
  }

  async #ask(url, body, type) {
    let answer;
    try {
      answer = await fetch(url, {
        method: "POST", body, headers: { "Content-Type": type, Accept: "application/json", "X-CSRF-Token": this.form.elements.csrf.value },
      });
    } catch {
      throw new Error("No connection to the server. Your changes are kept in this browser.");
    }
    if (answer.ok) return answer.json();
    if (answer.status === 401 || answer.status === 403) {
      const { text, link } = this.#signedOut();
      throw Object.assign(new Error(text), { link, status: answer.status });
    }
    const { detail } = await answer.json().catch(() => ({}));
    throw Object.assign(new Error(sentence(detail ?? `The server answered ${answer.status}.`)), { status: answer.status });
  }

  #signedOut() {
    this.#keep();
    return { text: "You're signed out. Your changes are kept in this browser.", link: { text: "Sign in", url: this.form.dataset.signIn } };
  }

  /** Stay on the page after `sent` was saved as `commit`, since more was typed in the meantime. */
  #goOn(sent, commit) {
    const { etag, began } = this.form.elements;
    etag.value = commit;
    if (began) began.value = commit;
    if (this.message.value === sent.message) this.message.value = "";
    Object.assign(this, { original: sent.text, firstMessage: "", unsaved: false });
    this.touched();
    this.notice = { text: "Saved. What you typed since then is not saved yet." };
  }

  async save() {
    if (this.saving) return;
    this.saving = true;
    const button = this.form.querySelector("button.main");
    button.disabled = true;
    try {
      await this.settle();
      const sent = { text: this.text, message: this.message.value };
      this.area.value = sent.text;
      this.#keep();
      const answer = await fetch(this.form.action, { method: "POST", body: new URLSearchParams(new FormData(this.form)), headers: { Accept: "application/json" } });
      if (answer.ok) {
        const { location: next, commit } = await answer.json();
        await this.settle();
        if (this.text !== sent.text || this.message.value !== sent.message) {
          this.#goOn(sent, commit);
          return;
        }
        this.done = true;
        this.kept.forgetOwn();
        location.assign(next);
        return;
      }
      if (answer.status === 409 || answer.status === 412) {
        this.form.submit(); // shows both texts; the copy is kept
        return;
      }
      if (answer.status === 401 || answer.status === 403) this.notice = this.#signedOut();
      else {
        const refused = await answer.json().catch(() => ({}));
        this.notice = { text: `Not saved. ${sentence(refused.detail ?? `The server answered ${answer.status}.`)}`, bad: true };
        if (refused.problems) this.judged({ problems_total: refused.problems.length, ...refused });
      }
    } catch {
      this.notice = { text: "Not saved: no connection to the server. Your changes are kept in this browser.", bad: true };
    } finally {
      this.saving = false;
      button.disabled = false;
    }
  }
}
