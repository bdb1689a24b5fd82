// The custom elements. This entry holds status and history; compare and editor are loaded where they are used.
import { mount, unmount } from "svelte";
import base from "../../../static/gitstore.css?inline";
import { ApiError, apiOf } from "./api.js";
import own from "./embed.css?inline";
import History from "./History.svelte";
import Status from "./Status.svelte";

const SERVER = new URL("..", import.meta.url).href.replace(/\/$/, "");
const defaults = { server: SERVER, project: "", getToken: null };

// The styles of gitstore's pages, for a shadow root. A page sets --gitstore-NAME in place of each colour --NAME.
const themed = base
  .replaceAll(/:root:not\(\[data-theme="?(\w+)"?\]\)/g, ':host(:not([theme="$1"]))')
  .replaceAll(/:root\[data-theme="?(\w+)"?\]/g, ':host([theme="$1"])')
  .replaceAll(":root", ":host")
  .replaceAll(/(?<=[{;])\s*--(?!lightningcss)([\w-]+):\s*([^;}]+)/g, "--$1:var(--gitstore-$1,$2)");
const sheets = new Map();

/** Return a style sheet that all elements share. */
function sheet(text) {
  if (!sheets.has(text)) {
    const made = new CSSStyleSheet();
    made.replaceSync(text);
    sheets.set(text, made);
  }
  return sheets.get(text);
}

/** Set what elements of this page have in common: `server`, `project`, `getToken`. */
export function configure(settings) {
  Object.assign(defaults, settings);
  for (const element of living) element.restart();
}

/** Remove what the editor kept in this browser; a page calls it when its user signs out. */
export { forgetAll as forget } from "../kept.js";

const living = new Set();

class GitstoreElement extends HTMLElement {
  static observedAttributes = ["server", "project", "workflow", "from", "to", "readonly"];
  #getToken = null;
  #app = null;
  #due = false;
  #root = this.attachShadow({ mode: "open" });

  /** Return the user's token; called before each request, and with `{ expired: true }` after a 401. */
  get getToken() {
    return this.#getToken;
  }

  set getToken(given) {
    this.#getToken = given;
    this.restart();
  }

  connectedCallback() {
    if (Object.hasOwn(this, "getToken")) { // set before the element was defined
      const { getToken } = this;
      delete this.getToken;
      this.#getToken = getToken;
    }
    living.add(this);
    this.restart();
  }

  disconnectedCallback() {
    living.delete(this);
    this.restart();
  }

  attributeChangedCallback(name, before, after) {
    if (before !== after) this.restart();
  }

  /** Show the element anew, once for all changes of a moment. */
  restart() {
    if (this.#due) return;
    this.#due = true;
    queueMicrotask(() => {
      this.#due = false;
      this.#show();
    });
  }

  async #show() {
    const app = {};
    if (this.#app?.mounted) unmount(this.#app.mounted);
    this.#app = app;
    this.#root.replaceChildren();
    const settings = {
      server: (this.getAttribute("server") ?? defaults.server).replace(/\/$/, ""),
      project: this.getAttribute("project") ?? defaults.project,
      workflow: this.getAttribute("workflow"),
      getToken: this.#getToken ?? defaults.getToken,
    };
    if (!this.isConnected || !settings.workflow || !settings.getToken) return;
    try {
      const { default: component, styles = [] } = await this.constructor.load();
      if (this.#app !== app) return;
      // CodeMirror adds one of its own.
      this.#root.adoptedStyleSheets = [...new Set([...[themed, own, ...styles].map(sheet), ...this.#root.adoptedStyleSheets])];
      app.mounted = mount(component, { target: this.#root, props: {
        api: apiOf(settings), readonly: this.hasAttribute("readonly"),
        from: this.getAttribute("from") ?? undefined, to: this.getAttribute("to") ?? undefined,
        emit: (name, detail) => this.#emit(name, detail),
      } });
    } catch (error) {
      // A page that was open while the server was updated asks for a file that is gone.
      this.#root.textContent = "This part of the page could not be loaded. Reload the page.";
      this.#emit("error", { message: error.message });
    }
  }

  /** Dispatch an event; return whether the page lets the element go on. */
  #emit(name, detail) {
    const told = detail instanceof ApiError ? { status: detail.status, code: detail.code, message: detail.message } : detail;
    return this.dispatchEvent(new CustomEvent(`gitstore-${name}`, { bubbles: true, composed: true, cancelable: true, detail: told }));
  }
}

const ELEMENTS = {
  "gitstore-status": async () => ({ default: Status }),
  "gitstore-history": async () => ({ default: History }),
  "gitstore-compare": () => import("./compare.js"),
  "gitstore-editor": () => import("./editor.js"),
};
for (const [name, load] of Object.entries(ELEMENTS)) {
  if (!customElements.get(name)) customElements.define(name, class extends GitstoreElement { static load = load; });
}
