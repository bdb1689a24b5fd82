// Entry of the edit page: the plain form stays, hidden, and is what is sent.
import { flushSync, mount } from "svelte";
import App from "./App.svelte";
import { FormDraft } from "./form.svelte.js";
import "@xyflow/svelte/dist/style.css";
import "./editor.css";

const form = document.getElementById("edit");
const host = document.getElementById("editor");
const plain = document.getElementById("plain");

const draft = new FormDraft(form);
plain.hidden = true;
host.hidden = false;
try {
  mount(App, { target: host, props: { draft } });
  flushSync();
  document.getElementById("unsaved")?.remove(); // the editor offers these texts itself
  draft.area.removeAttribute("aria-label"); // it is CodeMirror's now
  for (const listed of plain.querySelectorAll(".body")) listed.remove();
} catch (error) {
  draft.close();
  host.remove();
  plain.hidden = false;
  throw error;
}
