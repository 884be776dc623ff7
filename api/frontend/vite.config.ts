import { defineConfig } from "vite";

export default defineConfig({
  build: {
    // The pages' policy lets nothing in from data URLs but pictures.
    assetsInlineLimit: 0,
    // Those that know light-dark(), which a style sheet for older ones could only imitate.
    cssTarget: ["chrome123", "firefox120", "safari17.5"],
    // Monaco, GraphiQL's editor, is one chunk of about 3 MB that no split makes smaller.
    chunkSizeWarningLimit: 4000,
    rolldownOptions: {
      // The api answers with the pages itself and serves everything that they name from /assets.
      input: ["studio/index.html", "explorer/index.html"],
      // GraphiQL's packages carry "use client", which means nothing to a page without server components.
      checks: { moduleLevelDirective: false },
    },
  },
});
