// Positions of nodes and edges in a text, and layouts. The server's parser decides what a definition is: this
// one only gives positions: where to draw a node, and where it is in the text.
import { isMap, parseDocument } from "yaml";
import { arrange, drawn, isObject } from "./layout.js";

function parse(text, kinds) {
  const found = parseDocument(text, { merge: false, prettyErrors: false, logLevel: "silent", uniqueKeys: false });
  if (found.errors.length) return { ok: false, why: found.errors[0].message, at: found.errors[0].pos[0] };
  const value = found.toJS({ maxAliasCount: 1000 });
  if (!isObject(value)) return { ok: false, why: "The text is not a mapping.", at: 0 };
  const ranges = (key) => {
    const list = isMap(found.contents) ? found.contents.get(key, true) : null;
    return (list?.items ?? []).map((item) => item?.range ?? [0, 0]);
  };
  return { ok: true, ...drawn(value, kinds, ranges("nodes"), ranges("edges")) };
}

/** Return a function that answers the messages of a draft. */
export function answering() {
  let last = {};
  let text = "";

  /** Send nodes and edges that the draft has `since` an answer as their number there, with where they are now. */
  function changes({ number, since }, found) {
    const known = since === last.number ? last : {};
    last = { number };
    const short = (list) => {
      const before = known[list] ?? new Map();
      last[list] = new Map();
      return found[list].map((item, index) => {
        const same = JSON.stringify({ ...item, from: 0, to: 0 });
        last[list].set(same, index);
        return before.has(same) ? [before.get(same), item.from, item.to] : item;
      });
    };
    return { ...found, nodes: short("nodes"), edges: short("edges") };
  }

  return (data) => {
    try {
      if (data.arrange) return { number: data.number, places: arrange(data.nodes, data.edges) };
      text = data.text ?? data.edits.reduce((old, [from, to, inserted]) => old.slice(0, from) + inserted + old.slice(to), text);
      const found = parse(text, data.kinds);
      return { number: data.number, ...(found.ok ? changes(data, found) : found) };
    } catch (error) {
      return { number: data.number, ok: false, why: String(error.message ?? error), at: 0 };
    }
  };
}
