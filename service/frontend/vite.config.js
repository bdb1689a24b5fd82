import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

// The content security policy allows no inline style; editor.css has this one as a rule.
const withoutInlineStyles = {
  name: "without-inline-styles",
  renderChunk: (code) => code.replaceAll('<svelte-css-wrapper style="display: contents">', "<svelte-css-wrapper>"),
};

export default defineConfig({
  base: "./",
  plugins: [svelte(), withoutInlineStyles],
  build: {
    outDir: "../static/built",
    emptyOutDir: true,
    manifest: "manifest.json",
    target: "es2022",
    modulePreload: false,
    rollupOptions: { input: { editor: "src/editor.js" } },
  },
});
