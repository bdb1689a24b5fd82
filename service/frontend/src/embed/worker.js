import url from "../parse.worker.js?worker&url";

/** Return a worker that parses texts. Where the page's policy allows none, the page parses them itself. */
export async function worker() {
  const script = new URL(url, import.meta.url).href;
  const blob = URL.createObjectURL(new Blob([`import ${JSON.stringify(script)};`], { type: "text/javascript" }));
  try {
    const started = new Worker(blob, { type: "module" }); // a worker's own script has to be of the page's origin
    await new Promise((ready, failed) => {
      started.onmessage = ready;
      started.onerror = failed;
      started.postMessage({ number: 0, text: "", kinds: {} });
    });
    started.onerror = null;
    return started;
  } catch {
    return here();
  } finally {
    URL.revokeObjectURL(blob);
  }
}

async function here() {
  const { answering } = await import("../parse.js");
  const answered = answering();
  return {
    onmessage: null,
    terminate() {},
    postMessage(data) {
      setTimeout(() => this.onmessage?.({ data: answered(data) }));
    },
  };
}
