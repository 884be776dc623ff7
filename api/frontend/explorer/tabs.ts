import type { GraphiQLProps } from "graphiql";

import { LAST_GENERATION } from "./generation";
import BUY_PREMIUM from "./tabs/buy-premium.graphql?raw";
import GENERATE from "./tabs/generate.graphql?raw";
import MY_PICTURES from "./tabs/my-pictures.graphql?raw";
import SIGN_IN from "./tabs/sign-in.graphql?raw";
import SIGN_UP from "./tabs/sign-up.graphql?raw";
import WATCH from "./tabs/watch.graphql?raw";

function tab(query: string, variables: object) {
  return { query, variables: JSON.stringify(variables, null, 2) };
}

/** What a first visit finds: the way from signing up to a picture and beyond, one tab a step. */
export const READY_TABS = [
  tab(SIGN_UP, { input: { email: "", password: "" } }),
  tab(SIGN_IN, { input: { email: "premium@darkroom.local", password: "" } }),
  // Without the fields that have a default the editor says that they are missing.
  tab(GENERATE, {
    input: {
      prompt: "a red house by the sea at sunset",
      negativePrompt: "",
      count: 1,
      format: "PNG",
      seed: 20,
      steps: 20,
    },
  }),
  tab(WATCH, { id: LAST_GENERATION }),
  tab(MY_PICTURES, { first: 10, after: null }),
  tab(BUY_PREMIUM, { input: { offer: "month" } }),
] as const satisfies GraphiQLProps["defaultTabs"];
