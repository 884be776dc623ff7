import { defineConfig } from "vite";

export default defineConfig({
  // The api answers GET /graphql with index.html and serves everything it names from here.
  base: "/explorer/",
  build: {
    // Monaco, GraphiQL's editor, is one chunk of about 3 MB that no split makes smaller.
    chunkSizeWarningLimit: 4000,
    // GraphiQL's packages carry "use client", which means nothing to a page without server components.
    rolldownOptions: { checks: { moduleLevelDirective: false } },
  },
});
