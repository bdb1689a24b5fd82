import adapter from "@sveltejs/adapter-static";

const gitstore = process.env.PUBLIC_GITSTORE_URL ?? "http://127.0.0.1:8080";
const supabase = process.env.PUBLIC_SUPABASE_URL ?? "http://127.0.0.1:54321";

export default {
  kit: {
    adapter: adapter({ fallback: "index.html" }),
    csp: {
      mode: "hash",
      directives: {
        "default-src": ["none"],
        "script-src": ["self", gitstore],
        "style-src": ["self"],
        "style-src-attr": ["unsafe-inline"], // of SvelteKit's own announcer of routes; the elements need none
        "connect-src": ["self", gitstore, supabase],
        "worker-src": ["blob:"],
        "base-uri": ["none"],
        "form-action": ["none"],
      },
    },
  },
};
