// The one draft behind both views: its text is CodeMirror's document, the picture is drawn from it by a worker,
// and what the canvas changes comes back from the server as text.
import { autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, isolateHistory, redo, redoDepth, undo, undoDepth } from "@codemirror/commands";
import { json } from "@codemirror/lang-json";
import { yaml } from "@codemirror/lang-yaml";
import { HighlightStyle, bracketMatching, foldGutter, foldKeymap, forceParsing, indentOnInput, syntaxHighlighting, syntaxTreeAvailable } from "@codemirror/language";
import { lintGutter, lintKeymap, setDiagnostics } from "@codemirror/lint";
import { highlightSelectionMatches, search, searchKeymap } from "@codemirror/search";
import { ChangeSet, EditorState, StateEffect, StateField } from "@codemirror/state";
import { Decoration, EditorView, drawSelection, highlightActiveLineGutter, keymap, lineNumbers } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { duplicate, group, moved, neighbour, rekinded, set } from "./graph.js";

const PARSE_AFTER = 200; // milliseconds without a key
const CHECK_AFTER = 350;
const SLICE = 12; // milliseconds of work in an idle moment
const whenIdle = globalThis.requestIdleCallback ?? ((work) => setTimeout(work, 50)); // Safari has none

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
  picture = $state.raw({ ok: false, nodes: [], edges: [], isGraph: true, hasNodes: false, hasEdges: false });
  broken = $state(""); // why the text can't be drawn at present
  problems = $state.raw([]);
  total = $state(0);
  status = $state("");
  notice = $state(null); // { text, link? }
  selected = $state(null); // key of a node
  several = $state.raw([]); // keys of the nodes that are selected, if they are more than one
  focused = $state(null); // key of a node that the canvas shall show
  folded = $state.raw(new Set()); // keys of containers
  depth = $state({ undo: 0, redo: 0 });
  savedAt = $state(null); // when the last autosave was
  saving = $state(false);
  copies = $state.raw([]); // of unsaved text, that are offered
  busy = $state(0); // changes of the canvas under way
  typing = new Set(); // functions that write the fields in which something is typed

  worst = $derived.by(() => {
    const found = new Map();
    for (const { node, severity } of this.problems) if (found.get(node) !== "error") found.set(node, severity);
    return found;
  });

  /** `worker` answers messages as parse.worker.js does; `nonce` is for styles. */
  constructor({ text, kinds, worker, nonce = "" }) {
    this.original = text;
    this.kinds = kinds;
    this.nonce = nonce;
    this.byName = Object.fromEntries(kinds.map((kind) => [kind.name, kind]));
    this.names = Object.fromEntries(kinds.flatMap((kind) => [kind.name, ...kind.aliases].map((name) => [name, kind.name])));
    this.worker = worker;
    this.waiting = new Map();
    this.number = 0;
    this.queue = Promise.resolve();
    this.unsent = null; // what has changed since the worker got the text; null if it has none
    this.worker.onmessage = ({ data }) => {
      this.waiting.get(data.number)?.(data);
      this.waiting.delete(data.number);
    };
  }

  // What a server does for it. Each returns its answer, or throws an error with a `message` for people.

  async check() {
    throw new Error("not implemented");
  }

  async patch() {
    throw new Error("not implemented");
  }

  /** The text has changed. */
  touched() {}

  /** Return the fragment of the address that names a line. */
  get fragment() {
    return "";
  }

  get text() {
    return this.view.state.doc.toString();
  }

  /** Put CodeMirror into `parent`. */
  show(parent) {
    const isJson = /^\s*[{[]/.test(this.original);
    this.view = new EditorView({
      parent,
      state: EditorState.create({
        doc: this.original,
        extensions: [
          EditorView.cspNonce.of(this.nonce),
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
    this.#colour();
    this.#parse();
    this.#check();
    this.goTo(this.fragment);
    return () => this.view.destroy();
  }

  /** Colour the text to its end. CodeMirror stops behind what is seen, and then would begin anew with each key. */
  #colour() {
    const { state } = this.view;
    if (this.colouring || syntaxTreeAvailable(state, state.doc.length)) return;
    this.colouring = true;
    whenIdle(() => {
      this.colouring = false;
      forceParsing(this.view, this.view.state.doc.length, SLICE);
      this.#colour();
    });
  }

  #complete(context) {
    const word = context.matchBefore(/\btype:\s*\w*/);
    if (!word) return null;
    const from = word.from + /^type:\s*/.exec(word.text)[0].length;
    return { from, options: this.kinds.map(({ name, summary }) => ({ label: name, detail: summary, type: "type" })) };
  }

  #updated(update) {
    if (update.docChanged) {
      const depth = { undo: undoDepth(update.state), redo: redoDepth(update.state) };
      if (!this.depth.undo !== !depth.undo || !this.depth.redo !== !depth.redo) this.depth = depth;
      this.unsent = this.unsent?.compose(update.changes);
      this.touched();
      this.#colour();
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
    const given = this.unsent ? { edits: edits(this.unsent) } : { text: doc.toString() };
    this.unsent = ChangeSet.empty(doc.length);
    const found = whole(await this.#ask({ ...given, kinds: this.names, since: this.last?.number }), this.last);
    if (found.ok) this.last = found;
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

  /** Return the worst problem of a container and of the nodes inside it. */
  worstInside(node) {
    const found = this.picture.nodes.filter((each) => each === node || each.parent === node.key).map((each) => this.worst.get(each.id));
    return found.find((severity) => severity === "error") ?? found.find(Boolean);
  }

  /** Show a container as one card, or with the nodes inside it. The definition does not change. */
  fold(key, on = !this.folded.has(key)) {
    const folded = new Set(this.folded);
    if (on) folded.add(key);
    else folded.delete(key);
    this.folded = folded;
    if (on && this.selected !== null && this.node(this.selected)?.parent === key) this.select(key);
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
    } else effects.push(mark.of(Decoration.none));
    this.view.dispatch({ effects });
    if (!node || !reveal) return;
    const { scrollDOM } = this.view; // by itself: CodeMirror would also scroll the page
    scrollDOM.scrollTop = this.view.lineBlockAt(node.from).top - scrollDOM.clientHeight / 2;
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

  goTo(hash) {
    const line = /^#L(\d{1,7})$/.exec(hash);
    if (line) this.goToLine(Number(line[1]));
  }

  // Changes of the canvas

  /**
   * Apply the JSON Patch that `steps` returns for the present picture. One change follows the other. Return whether it
   * was applied, or changes nothing.
   */
  change(steps) {
    this.busy += 1;
    this.queue = this.queue.then(() => this.#change(steps)).finally(() => {
      this.busy -= 1;
    });
    return this.queue;
  }

  /** Write what is typed into fields, and wait for the changes under way. */
  async settle() {
    for (const write of this.typing) write();
    await this.queue;
  }

  /** Return the keys of all selected nodes. */
  get chosen() {
    return this.several.length ? this.several : this.selected === null ? [] : [this.selected];
  }

  duplicate() {
    for (const key of this.chosen) this.change(duplicate(key, (id) => this.selectLater(id)));
  }

  /** Put the selected nodes into a loop. */
  group() {
    const free = this.chosen.map((key) => this.node(key)).filter((node) => node && !node.parent && !node.container);
    if (free.length) this.change(group(free.map((node) => node.key), this.byName.loop, (id) => this.selectLater(id)));
    else this.notice = { text: "Select the nodes for the loop first: hold Shift and drag around them, or hold Ctrl and click each." };
  }

  async #change(steps) {
    for (let attempt = 0; attempt < 5; attempt += 1) {
      const picture = await this.#fresh();
      if (!picture) {
        this.notice = { text: "The text has an error. Fix it first, then edit the graph." };
        return false;
      }
      const doc = this.view.state.doc;
      const patch = steps(picture);
      if (!patch.length) return true;
      let answer;
      try {
        answer = await this.patch(doc.toString(), patch);
      } catch (error) {
        this.notice = { text: error.message, link: error.link };
        break;
      }
      if (doc !== this.view.state.doc) continue; // the text changed: apply the same change to the newer text
      this.notice = null;
      this.replace(answer.text);
      this.judged(answer);
      await this.#parse();
      if (this.next && this.node(this.next)) this.select(this.next, { reveal: true });
      this.focused = this.next ?? this.focused;
      this.next = null;
      return true;
    }
    this.picture = { ...this.picture }; // draw the text again
    return false;
  }

  /** Replace the text by one change that can be undone by itself, with as few characters as possible. */
  replace(text) {
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

  async #check() {
    clearTimeout(this.checkTimer);
    const doc = this.view.state.doc;
    try {
      const found = await this.check(doc.toString());
      if (doc === this.view.state.doc) this.judged(found);
    } catch (error) {
      if (error.link) this.notice = { text: error.message, link: error.link };
      this.status = error.status ? "Check failed" : "No connection";
    }
  }

  /** Show the problems that the server found in the present text. */
  judged({ problems, problems_total: total }) {
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
    const repair = this.#repairs[problem.code];
    const index = Number(/^\/nodes\/(\d+)/.exec(problem.pointer ?? "")?.[1] ?? NaN);
    const found = (picture) => {
      const node = repair && picture.nodes.find((each) => each.index === index);
      return node ? repair(node, picture) : null;
    };
    const known = found(this.picture);
    return known && { label: known.label, apply: () => this.change((picture) => found(picture)?.steps ?? []) };
  }

  #repairs = {
    position_missing: (node) => ({ label: "Place it", steps: set(node, ["position"], { x: node.x, y: node.y }) }),
    label_missing: (node) => ({ label: "Add a label", steps: set(node, ["data", "label"], this.byName[node.kind]?.title ?? node.id ?? "Node") }),
    node_kind_unknown: (node) => {
      const near = this.#nearest(node);
      return near && { label: `Change to ${near}`, steps: rekinded(node, near) };
    },
    node_unconnected: (node, picture) => {
      const found = neighbour(picture, node.key, this.byName);
      return found && { label: `Connect ${found.starts ? "before" : "after"} ${this.title(found.other)}`, steps: found.steps(picture) };
    },
  };

  #nearest(node) {
    const plain = (name) => name.toLowerCase().replace(/[^a-z]/g, "");
    const name = plain(node.kind);
    const near = this.kinds.find((kind) => [kind.name, kind.title].some((known) => plain(known) === name || distance(plain(known), name) <= 2));
    return near?.name ?? null;
  }
}

export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? "" : ".");

/** Return changes as replaced ranges of the old text, the last one first. */
function edits(changes) {
  const found = [];
  changes.iterChanges((from, to, _, __, inserted) => found.unshift([from, to, inserted.toString()]));
  return found;
}

/** Return the answer `found` with all its nodes and edges: those that have not changed are the objects of `last`. */
function whole(found, last) {
  const long = (list) => found[list].map((item) => (Array.isArray(item) ? Object.assign(last[list][item[0]], { from: item[1], to: item[2] }) : item));
  return found.ok ? { ...found, nodes: long("nodes"), edges: long("edges") } : found;
}

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
