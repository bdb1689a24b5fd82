// The one draft behind both views: its text is CodeMirror's document, the picture is drawn from it by a worker,
// and what the canvas changes comes back from the server as text.
import { autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, isolateHistory, redo, redoDepth, undo, undoDepth } from "@codemirror/commands";
import { json } from "@codemirror/lang-json";
import { yaml } from "@codemirror/lang-yaml";
import { HighlightStyle, bracketMatching, foldGutter, foldKeymap, indentOnInput, syntaxHighlighting } from "@codemirror/language";
import { lintGutter, lintKeymap, setDiagnostics } from "@codemirror/lint";
import { highlightSelectionMatches, search, searchKeymap } from "@codemirror/search";
import { EditorState, StateEffect, StateField } from "@codemirror/state";
import { Decoration, EditorView, drawSelection, highlightActiveLineGutter, keymap, lineNumbers } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import * as kept from "./kept.js";
import ParseWorker from "./parse.worker.js?worker";

const PARSE_AFTER = 200; // milliseconds without a key
const CHECK_AFTER = 350;
const KEEP_AFTER = 300;
const AUTOSAVE_AFTER = 2000;

const colours = HighlightStyle.define([
  { tag: [tags.propertyName, tags.definition(tags.propertyName)], color: "var(--k-blue)" },
  { tag: [tags.string, tags.special(tags.string)], color: "var(--k-green)" },
  { tag: [tags.number, tags.bool, tags.null, tags.keyword], color: "var(--k-amber)" },
  { tag: [tags.comment, tags.lineComment, tags.punctuation, tags.separator, tags.squareBracket, tags.brace], color: "var(--muted)" },
  { tag: [tags.labelName, tags.typeName, tags.meta], color: "var(--k-violet)" },
]);

const mark = StateEffect.define();
const marked = StateField.define({
  create: () => Decoration.none,
  update(lines, transaction) {
    let next = lines.map(transaction.changes);
    for (const effect of transaction.effects) if (effect.is(mark)) next = effect.value;
    return next;
  },
  provide: (field) => EditorView.decorations.from(field),
});

export class Draft {
  picture = $state.raw({ ok: true, nodes: [], edges: [], isGraph: true, hasNodes: false, hasEdges: false });
  broken = $state(""); // why the text can't be drawn at present
  problems = $state.raw([]);
  total = $state(0);
  status = $state("");
  notice = $state(null); // { text, link? }
  copies = $state.raw([]);
  selected = $state(null); // key of a node
  focused = $state(null); // key of a node that the canvas shall show
  depth = $state({ undo: 0, redo: 0 });
  saving = $state(false);
  savedAt = $state(null); // when the last autosave was
  busy = $state(0); // changes of the canvas under way

  worst = $derived.by(() => {
    const found = new Map();
    for (const { node, severity } of this.problems) if (found.get(node) !== "error") found.set(node, severity);
    return found;
  });

  constructor(form) {
    this.form = form;
    this.area = form.querySelector("textarea[name=definition]");
    this.message = form.elements.message;
    this.kinds = JSON.parse(form.dataset.kinds);
    this.byName = Object.fromEntries(this.kinds.map((kind) => [kind.name, kind]));
    this.names = Object.fromEntries(this.kinds.flatMap((kind) => [kind.name, ...kind.aliases].map((name) => [name, kind.name])));
    this.original = { text: this.area.value, message: this.message.value };
    this.unsaved = "refused" in form.dataset;
    this.worker = new ParseWorker();
    this.waiting = new Map();
    this.number = 0;
    this.queue = Promise.resolve();
    this.worker.onmessage = ({ data }) => {
      this.waiting.get(data.number)?.(data);
      this.waiting.delete(data.number);
    };
    this.copies = kept.offered(form, this.original.text, this.original.message);
    this.autosaves = Boolean(form.elements.began);
    if (this.autosaves) this.#offerAutosaves();
    this.#listen();
  }

  get text() {
    return this.view.state.doc.toString();
  }

  get isDirty() {
    return this.unsaved || this.message.value !== this.original.message || this.text !== this.original.text;
  }

  /** Put CodeMirror into `parent`. */
  show(parent) {
    const isJson = /^\s*[{[]/.test(this.original.text);
    this.view = new EditorView({
      parent,
      state: EditorState.create({
        doc: this.original.text,
        extensions: [
          EditorView.cspNonce.of(this.form.dataset.nonce),
          EditorView.contentAttributes.of({ "aria-label": "Definition", spellcheck: "false", tabindex: "0" }),
          lineNumbers(), foldGutter(), lintGutter(), highlightActiveLineGutter(), history(), drawSelection(), indentOnInput(),
          bracketMatching(), closeBrackets(), highlightSelectionMatches(), search({ top: true }), marked,
          isJson ? json() : yaml(), syntaxHighlighting(colours),
          autocompletion({ override: [(context) => this.#complete(context)] }),
          keymap.of([...closeBracketsKeymap, ...searchKeymap, ...historyKeymap, ...foldKeymap, ...completionKeymap, ...lintKeymap, ...defaultKeymap]),
          EditorView.updateListener.of((update) => this.#updated(update)),
        ],
      }),
    });
    this.#parse();
    this.#check();
    this.#goTo(location.hash);
    return () => this.view.destroy();
  }

  #complete(context) {
    const word = context.matchBefore(/\btype:\s*\w*/);
    if (!word) return null;
    const from = word.from + /^type:\s*/.exec(word.text)[0].length;
    return { from, options: this.kinds.map(({ name, summary }) => ({ label: name, detail: summary, type: "type" })) };
  }

  #listen() {
    this.message.addEventListener("input", () => this.#keepSoon());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.save();
    });
    addEventListener("keydown", (event) => {
      if (!(event.ctrlKey || event.metaKey) || event.key !== "s") return;
      event.preventDefault();
      this.form.requestSubmit();
    });
    addEventListener("pagehide", () => this.#keep());
    addEventListener("visibilitychange", () => document.hidden && this.#keep());
    addEventListener("beforeunload", (event) => {
      if (this.isDirty && !this.#keep()) event.preventDefault(); // the browser asks: no copy can be kept
    });
    addEventListener("hashchange", () => this.#goTo(location.hash));
    document.querySelector("form[action$='/ui/sign-out']")?.addEventListener("submit", () => {
      this.signingOut = true;
      kept.forgetAll();
    });
  }

  #updated(update) {
    if (update.docChanged) {
      this.depth = { undo: undoDepth(update.state), redo: redoDepth(update.state) };
      this.#keepSoon();
      clearTimeout(this.parseTimer);
      this.parseTimer = setTimeout(() => this.#parse(), PARSE_AFTER);
      clearTimeout(this.checkTimer);
      this.checkTimer = setTimeout(() => this.#check(), CHECK_AFTER);
      this.status = "Checking…";
      this.stale = true;
    } else if (!this.stale && update.transactions.some((each) => each.isUserEvent("select"))) {
      this.#selectAt(update.state.selection.main.head);
    }
  }

  // Kept copies

  #keepSoon() {
    clearTimeout(this.autosaveTimer);
    if (this.autosaves) this.autosaveTimer = setTimeout(() => this.#autosaveNow(), AUTOSAVE_AFTER);
    clearTimeout(this.keepTimer);
    this.keepTimer = setTimeout(() => this.#keep(), KEEP_AFTER);
  }

  /** Keep a copy of what is not saved; return whether that worked. */
  #keep() {
    clearTimeout(this.keepTimer);
    if (this.done || this.signingOut) return true;
    if (this.isDirty) return kept.keep(this.form, this.text, this.message.value);
    kept.forgetOwn(this.form);
    return true;
  }

  restore(copy) {
    kept.restoreSeen(this.form, copy);
    this.#replace(copy.text);
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
    if (answer.status === 401 || answer.status === 403) this.#signedOut();
    return answer.ok && answer.status !== 204 ? answer.json() : null;
  }

  async #offerAutosaves() {
    try {
      const { autosaves } = (await this.#autosave("GET")) ?? { autosaves: [] };
      const known = (text) => text === this.original.text || this.copies.some((copy) => copy.text === text);
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

  // The picture

  #ask(message) {
    this.number += 1;
    const number = this.number;
    return new Promise((answered) => {
      this.waiting.set(number, answered);
      this.worker.postMessage({ number, ...message });
    });
  }

  async #parse() {
    clearTimeout(this.parseTimer);
    const doc = this.view.state.doc;
    const found = await this.#ask({ text: doc.toString(), kinds: this.names });
    if (doc !== this.view.state.doc) return; // a later one is under way
    this.stale = false;
    this.broken = found.ok ? "" : found.why;
    if (found.ok) this.picture = found;
    if (this.view.hasFocus) this.#selectAt(this.view.state.selection.main.head);
  }

  /** Return the picture of the present text; null if that can't be drawn. */
  async #fresh() {
    while (this.stale) await this.#parse();
    return this.broken ? null : this.picture;
  }

  node(key) {
    return this.picture.nodes.find((node) => node.key === key);
  }

  title(node) {
    return node.label || node.id || "Unnamed node";
  }

  problemsOf(key) {
    return this.problems.filter((problem) => problem.node === key);
  }

  #selectAt(position) {
    const node = this.picture.nodes.find((each) => each.from <= position && position <= each.to);
    if (!node || node.key === this.selected) return;
    this.select(node.key);
    this.focused = node.key;
  }

  /** Select a node, and mark its lines; with `reveal`, show them. */
  select(key, { reveal = false } = {}) {
    this.selected = key;
    const node = key === null || this.stale ? null : this.node(key);
    const effects = [];
    if (node) {
      const doc = this.view.state.doc;
      const last = doc.lineAt(Math.max(node.from, Math.min(node.to, doc.length) - 1)).number;
      const lines = [];
      for (let line = doc.lineAt(node.from).number; line <= last; line += 1) {
        lines.push(Decoration.line({ class: "cm-node" }).range(doc.line(line).from));
      }
      effects.push(mark.of(Decoration.set(lines)));
      if (reveal) effects.push(EditorView.scrollIntoView(node.from, { y: "center" }));
    } else effects.push(mark.of(Decoration.none));
    this.view.dispatch({ effects });
  }

  /** Select the node with that id as soon as the text has it. */
  selectLater(id) {
    this.next = id;
  }

  goToLine(number) {
    const doc = this.view.state.doc;
    const line = doc.line(Math.min(Math.max(number, 1), doc.lines));
    this.view.dispatch({ selection: { anchor: line.from, head: line.to }, effects: EditorView.scrollIntoView(line.from, { y: "center" }) });
    this.view.focus();
  }

  #goTo(hash) {
    const line = /^#L(\d{1,7})$/.exec(hash);
    if (line) this.goToLine(Number(line[1]));
  }

  // Changes of the canvas

  /** Apply the JSON Patch that `steps` returns for the present picture. One change follows the other. */
  change(steps) {
    this.busy += 1;
    this.queue = this.queue.then(() => this.#change(steps)).finally(() => {
      this.busy -= 1;
    });
    return this.queue;
  }

  async #change(steps) {
    for (let attempt = 0; attempt < 5; attempt += 1) {
      const picture = await this.#fresh();
      if (!picture) {
        this.notice = { text: "The text has an error. Fix it first, then edit the graph." };
        return;
      }
      const doc = this.view.state.doc;
      const patch = steps(picture);
      if (!patch.length) return;
      const answer = await this.#send(this.form.dataset.patch, JSON.stringify({ text: doc.toString(), patch }), "application/json");
      if (!answer) break;
      if (doc !== this.view.state.doc) continue; // the text changed: apply the same change to the newer text
      this.notice = null;
      this.#replace(answer.text);
      this.#judged(answer);
      await this.#parse();
      if (this.next && this.node(this.next)) this.select(this.next, { reveal: true });
      this.focused = this.next ?? this.focused;
      this.next = null;
      return;
    }
    this.picture = { ...this.picture }; // draw the text again
  }

  /** Replace the text by one change that can be undone by itself, with as few characters as possible. */
  #replace(text) {
    const old = this.text;
    let from = 0;
    while (from < old.length && from < text.length && old[from] === text[from]) from += 1;
    let end = 0;
    while (end < old.length - from && end < text.length - from && old[old.length - 1 - end] === text[text.length - 1 - end]) end += 1;
    this.view.dispatch({
      changes: { from, to: old.length - end, insert: text.slice(from, text.length - end) },
      annotations: isolateHistory.of("full"),
      userEvent: "input.canvas",
    });
  }

  undo() {
    undo(this.view);
  }

  redo() {
    redo(this.view);
  }

  arrange() {
    return this.#fresh().then(async (picture) => {
      if (!picture) return this.change(() => []);
      const { places } = await this.#ask({ arrange: true, nodes: picture.nodes.map(({ key, width, height, parent }) => ({ key, width, height, parent })), edges: picture.edges.map(({ source, target, index }) => ({ source, target, index })) });
      return this.change((now) => now.nodes.filter((node) => !node.parent && places[node.key]).flatMap((node) => moved(node, places[node.key])));
    });
  }

  // The server

  async #send(url, body, type) {
    try {
      const answer = await fetch(url, {
        method: "POST", body, headers: { "Content-Type": type, Accept: "application/json", "X-CSRF-Token": this.form.elements.csrf.value },
      });
      if (answer.ok) return await answer.json();
      if (answer.status === 401 || answer.status === 403) this.#signedOut();
      else this.notice = { text: sentence((await answer.json().catch(() => ({}))).detail ?? `The server answered ${answer.status}.`) };
    } catch {
      this.notice = { text: "No connection to the server. Your changes are kept in this browser." };
    }
    return null;
  }

  #signedOut() {
    this.#keep();
    this.notice = { text: "You're signed out. Your changes are kept in this browser.", link: { text: "Sign in", url: this.form.dataset.signIn } };
  }

  async #check() {
    clearTimeout(this.checkTimer);
    const doc = this.view.state.doc;
    try {
      const answer = await fetch(this.form.dataset.check, {
        method: "POST", body: doc.toString(), headers: { "Content-Type": "text/plain; charset=utf-8", "X-CSRF-Token": this.form.elements.csrf.value },
      });
      if (doc !== this.view.state.doc) return;
      if (answer.ok) this.#judged(await answer.json());
      else if (answer.status === 401 || answer.status === 403) this.#signedOut();
      else this.status = "Check failed";
    } catch {
      this.status = "No connection";
    }
  }

  /** Show the problems that the server found in the present text. */
  #judged({ problems, problems_total: total }) {
    clearTimeout(this.checkTimer);
    this.problems = problems;
    this.total = total;
    const errors = problems.filter((problem) => problem.severity === "error").length;
    this.status = errors ? `${errors}${total > problems.length ? "+" : ""} problem${errors > 1 ? "s" : ""}` : "valid";
    const doc = this.view.state.doc;
    const found = problems.filter((problem) => problem.line && problem.line <= doc.lines).map((problem) => {
      const line = doc.line(problem.line);
      const from = Math.min(line.from + (problem.column ?? 1) - 1, line.to);
      const fix = this.fix(problem);
      return {
        from, to: line.to, severity: problem.severity, message: problem.message,
        actions: fix ? [{ name: fix.label, apply: () => fix.apply() }] : [],
      };
    });
    this.view.dispatch(setDiagnostics(this.view.state, found));
  }

  /** Return the obvious repair of a problem, or null. */
  fix(problem) {
    const index = Number(/^\/nodes\/(\d+)/.exec(problem.pointer ?? "")?.[1] ?? NaN);
    const steps = {
      position_missing: (node) => [{ op: "add", path: `/nodes/${index}/position`, value: { x: node.x, y: node.y } }],
      label_missing: (node) => set(node, ["data", "label"], this.byName[node.kind]?.title ?? node.id ?? "Node"),
      node_kind_unknown: (node) => this.#nearest(node) && rekinded(node, this.#nearest(node)),
    }[problem.code];
    const known = this.picture.nodes.find((node) => node.index === index);
    if (!steps || !known) return null;
    const near = problem.code === "node_kind_unknown" ? this.#nearest(known) : null;
    if (problem.code === "node_kind_unknown" && !near) return null;
    const label = { position_missing: "Place it", label_missing: "Add a label" }[problem.code] ?? `Change to ${near}`;
    return {
      label,
      apply: () => this.change((picture) => {
        const node = picture.nodes.find((each) => each.index === index);
        return node ? steps(node) : [];
      }),
    };
  }

  #nearest(node) {
    const plain = (name) => name.toLowerCase().replace(/[^a-z]/g, "");
    const name = plain(node.kind);
    const near = this.kinds.find((kind) => [kind.name, kind.title].some((known) => plain(known) === name || distance(plain(known), name) <= 2));
    return near?.name ?? null;
  }

  // Saving

  async save() {
    if (this.saving) return;
    await this.queue;
    this.area.value = this.text;
    this.#keep();
    this.saving = true;
    const button = this.form.querySelector("button.main");
    button.disabled = true;
    try {
      const answer = await fetch(this.form.action, { method: "POST", body: new URLSearchParams(new FormData(this.form)), headers: { Accept: "application/json" } });
      if (answer.ok) {
        const { location: next } = await answer.json();
        this.done = true;
        kept.forgetOwn(this.form);
        location.assign(next);
        return;
      }
      if (answer.status === 409 || answer.status === 412) {
        this.form.submit(); // shows both texts; the copy is kept
        return;
      }
      if (answer.status === 401 || answer.status === 403) this.#signedOut();
      else {
        const refused = await answer.json().catch(() => ({}));
        this.notice = { text: `Not saved. ${sentence(refused.detail ?? `The server answered ${answer.status}.`)}`, bad: true };
        if (refused.problems) this.#judged({ problems_total: refused.problems.length, ...refused });
      }
    } catch {
      this.notice = { text: "Not saved: no connection to the server. Your changes are kept in this browser.", bad: true };
    } finally {
      this.saving = false;
      button.disabled = false;
    }
  }
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? "" : ".");

/** Return the steps of a patch that set `value` at `path` within a node; undefined removes it. */
export function set(node, path, value) {
  const steps = [];
  let at = node.value;
  let pointer = `/nodes/${node.index}`;
  for (let depth = 0; depth < path.length - 1; depth += 1) {
    pointer += `/${escaped(path[depth])}`;
    const next = at?.[path[depth]];
    if (next === null || typeof next !== "object") {
      if (value === undefined) return [];
      let made = value;
      for (let inner = path.length - 1; inner > depth; inner -= 1) made = { [path[inner]]: made };
      return [{ op: "add", path: pointer, value: made }];
    }
    at = next;
  }
  const last = path[path.length - 1];
  pointer += `/${escaped(last)}`;
  if (value === undefined) {
    if (last in at) steps.push({ op: "remove", path: pointer });
  } else if (JSON.stringify(at[last]) !== JSON.stringify(value)) {
    steps.push({ op: last in at ? "replace" : "add", path: pointer, value });
  }
  return steps;
}

/** Return the steps that move a node: only the numbers that change. */
export function moved(node, { x, y }) {
  const place = { x: Math.round(x), y: Math.round(y) };
  if (node.placed || typeof node.value.position?.x !== "number" || typeof node.value.position?.y !== "number") {
    return set(node, ["position"], place);
  }
  return [...set(node, ["position", "x"], place.x), ...set(node, ["position", "y"], place.y)];
}

/** Return the steps that give a node another kind, where it has it. */
export function rekinded(node, kind) {
  const own = ["default", "loopContainer", undefined].includes(node.value.type) || node.value.data?.type !== undefined;
  return own ? [...set(node, ["data", "type"], kind), ...(node.value.type === undefined ? set(node, ["type"], "default") : [])] : set(node, ["type"], kind);
}

const escaped = (key) => key.replaceAll("~", "~0").replaceAll("/", "~1");

/** Return the edit distance of two short words. */
function distance(one, other) {
  if (Math.abs(one.length - other.length) > 2 || one.length > 40) return 99;
  let row = Array.from({ length: other.length + 1 }, (_, index) => index);
  for (let i = 1; i <= one.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= other.length; j += 1) next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (one[i - 1] === other[j - 1] ? 0 : 1));
    row = next;
  }
  return row[other.length];
}
