// The draft of an embedded editor: it is read, checked and saved over the HTTP API.
import { Draft } from "../draft.svelte.js";
import * as kept from "../kept.js";
import { may } from "./api.js";

const KEEP_AFTER = 300; // milliseconds without a key
const ENVELOPE = "application/vnd.gitstore.draft+json";

export class ApiDraft extends Draft {
  message = $state("");
  changed = $state(false);
  role = $state("viewer");
  conflicts = $state.raw([]);
  decisions = $state({});

  /** Read what is to be edited: the open draft, else the current version, else the latest. */
  static async open(api, emit, worker) {
    const row = await api.of("GET", "");
    const version = row.draft ? "draft" : row.current ? "current" : "latest";
    const known = row.draft ?? row.current ?? (row.latest_version ? await api.of("GET", "/versions/latest") : null);
    const [{ text }, kinds, role] = await Promise.all([
      known ? api.file(row.draft ? "draft" : version) : { text: "" }, api.kinds(), api.role(row.project),
    ]);
    const draft = new ApiDraft({ text, kinds, worker });
    draft.kept = new kept.Copies(`${api.server}:${row.project}`, row.slug);
    draft.copies = draft.kept.offered(text, "");
    return Object.assign(draft, {
      api, emit, role, slug: row.slug, began: known?.commit ?? "", etag: row.draft?.commit ?? "", latest: row.latest_version ?? 0, number: 0,
    });
  }

  check(text) {
    return this.api.of("POST", "/validate", { body: text, type: "application/yaml" });
  }

  patch(text, patch) {
    return this.api.of("POST", "/versions/draft/edit", { body: { text, patch } });
  }

  get mayPublish() {
    return may(this.role, "publisher");
  }

  touched() {
    this.changed = true;
    this.savedAt = null;
    clearTimeout(this.keepTimer);
    this.keepTimer = setTimeout(() => this.keep(), KEEP_AFTER);
  }

  /** Keep a copy of what is not saved; return whether the browser took it. */
  keep() {
    clearTimeout(this.keepTimer);
    if (!this.changed) {
      this.kept.forgetOwn();
      return true;
    }
    return this.kept.keep(this.began, { text: this.text, message: this.message, seen: { began: this.began, etag: this.etag } });
  }

  restore(copy) {
    Object.assign(this, copy.seen); // so that saving merges what others did since
    this.message = copy.message;
    this.replace(copy.text);
    if (this.keep()) kept.forget(copy.key);
    this.copies = this.copies.filter((other) => other !== copy);
  }

  discard(copy) {
    kept.forget(copy.key);
    this.copies = this.copies.filter((other) => other !== copy);
  }

  isOnOlderBase(copy) {
    return copy.seen?.began !== this.began;
  }

  /** Save the draft; with `publish`, publish it as well. Where others saved in the meantime, merge first. */
  async save({ publish = false } = {}) {
    if (this.saving) return;
    this.saving = true;
    try {
      await this.settle();
      const { text, message } = this;
      let saved = null;
      if (this.changed || !this.etag) {
        const conditions = this.etag ? { "If-Match": `"${this.etag}"` } : { "If-None-Match": "*" };
        saved = await this.api.of("PUT", "/versions/draft", { type: ENVELOPE, body: { definition: text, message }, headers: conditions });
        this.#saved(saved, text);
        this.emit("saved", { workflow: this.slug, draft: saved.version_number, valid: saved.valid });
      }
      if (publish) {
        const version = await this.api.of("POST", "/versions/publish", { type: ENVELOPE, body: { message }, headers: { "If-Match": `"${this.etag}"` } });
        this.etag = "";
        this.notice = { text: `Published v${version.version_number}.` };
        this.emit("published", { workflow: this.slug, version: version.version_number, current: version.is_current });
      }
      if (this.message === message) this.message = "";
      this.api.changed();
    } catch (error) {
      if ([409, 412].includes(error.status) && (await this.#merge())) return;
      this.notice = { text: `${publish ? "Not published." : "Not saved."} ${error.message}`, bad: true };
      if (error.problems?.length) this.judged({ problems: error.problems, problems_total: error.problems.length });
      this.emit("error", error);
    } finally {
      this.saving = false;
    }
  }

  #saved({ commit }, text) {
    Object.assign(this, { etag: commit, began: commit, original: text, changed: this.text !== text, savedAt: Date.now() });
    this.keep();
  }

  /** Merge the text with what others did since; return whether that was done, or is asked about. */
  async #merge() {
    if (!this.began) return false;
    try {
      const merged = await this.api.of("POST", "/versions/draft/merge", { body: { base: this.began, definition: this.text, decisions: this.decisions } });
      this.conflicts = merged.conflicts.filter(({ path }) => !(path in this.decisions));
      const row = await this.api.of("GET", "");
      if (this.conflicts.length) {
        this.notice = { text: "Someone else changed the same fields. Choose which value to keep for each." };
        return true;
      }
      this.replace(merged.text);
      Object.assign(this, { began: merged.merged_into, etag: row.draft?.commit ?? "", decisions: {} });
      this.judged(merged);
      this.notice = { text: "Someone else saved in the meantime. Their changes are merged with yours: look at the result, and save it." };
      return true;
    } catch (error) {
      this.emit("error", error);
      return false;
    }
  }

  /** Keep one side of a conflict; after the last decision, merge. */
  async decide(path, side) {
    this.decisions = { ...this.decisions, [path]: side };
    this.conflicts = this.conflicts.filter((conflict) => conflict.path !== path);
    if (!this.conflicts.length) await this.#merge();
  }
}
