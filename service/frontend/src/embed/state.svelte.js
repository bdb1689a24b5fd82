import { onMount } from "svelte";

/** What an element shows of a workflow, read again after each change. */
export class Workflow {
  row = $state.raw(null);
  role = $state("viewer");
  failed = $state.raw(null);
  busy = $state(false);

  /** `also` is read with it, and returns a promise. */
  constructor(api, emit, also = async () => {}) {
    Object.assign(this, { api, emit, also });
    onMount(() => {
      this.read();
      return api.follow(() => this.read());
    });
  }

  async read() {
    try {
      const row = await this.api.of("GET", "");
      this.role = await this.api.role(row.project);
      await this.also(row);
      this.row = row;
      this.failed = null;
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Do something that changes the workflow; return what `action` returns, or null if that fails. */
  async do(action) {
    this.busy = true;
    this.failed = null;
    try {
      const done = await action();
      this.api.changed();
      return done;
    } catch (error) {
      this.#fail(error);
      return null;
    } finally {
      this.busy = false;
    }
  }

  #fail(error) {
    this.failed = error;
    this.emit("error", error);
  }

  /** Return the condition that an open draft has not changed since it was read. */
  get condition() {
    return this.row?.draft ? { "If-Match": `"${this.row.draft.commit}"` } : {};
  }
}
