import { svelte } from "@sveltejs/vite-plugin-svelte";
import { readFileSync } from "node:fs";
import { defineConfig } from "vite";

// The content security policy allows no inline style; editor.css has this one as a rule.
const withoutInlineStyles = {
  name: "without-inline-styles",
  renderChunk: (code) => code.replaceAll('<svelte-css-wrapper style="display: contents">', "<svelte-css-wrapper>"),
};

// Styles of components would be links in the head of a page, which a shadow root doesn't see: editor.css has them.
const withoutStyles = {
  markup: ({ content, filename = "" }) =>
    filename.includes("/@xyflow/") ? { code: content.replace(/<style>[^]*?<\/style>/g, "") } : undefined,
};

// The icons of the pages' templates, as data: elements of other pages can't refer to their sprite.
const MACROS = new URL("../templates/macros.html", import.meta.url);
const icons = {
  name: "icons",
  resolveId: (id) => (id === "virtual:icons" ? `\0${id}` : null),
  load(id) {
    if (id !== "\0virtual:icons") return null;
    const found = [...readFileSync(MACROS, "utf8").matchAll(/<symbol id="(i-\w+)"[^>]*>(.*?)<\/symbol>/g)];
    if (!found.length) throw new Error("no icons in macros.html");
    const shapes = (text) => [...text.matchAll(/<(\w+) ([^>]*?)\/>/g)].map(([, name, given]) => ({
      name, attributes: Object.fromEntries([...given.matchAll(/([\w-]+)="([^"]*)"/g)].map(([, key, value]) => [key, value])),
    }));
    return `export default ${JSON.stringify(found.map(([, id, text]) => ({ id, shapes: shapes(text) })))}`;
  },
};

export default defineConfig({
  base: "./",
  plugins: [icons, svelte({ preprocess: [withoutStyles] }), withoutInlineStyles],
  worker: { format: "es" },
  build: {
    outDir: "../static/built",
    emptyOutDir: true,
    manifest: "manifest.json",
    target: "es2022",
    modulePreload: false,
    rollupOptions: { preserveEntrySignatures: "exports-only", input: { editor: "src/editor.js", gitstore: "src/embed/gitstore.js" } },
  },
});
