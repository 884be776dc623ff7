import type { GraphiQLProps } from "graphiql";

import { LAST_GENERATION } from "./generation";

const SIGN_IN = `# 1. Sign in
#
# Write the account's password into the
# variables below and press the play button.
# The access token in the answer is then sent
# with everything that this page asks for.
# The form at the top does the same.

mutation SignIn($input: SigninInput!) {
  signin(input: $input) {
    __typename
    ... on Session {
      accessToken
      refreshToken
      expiresAt
      account {
        email
        tier
      }
    }
    ... on UserError {
      message
    }
  }
}
`;

const GENERATE = `# 2. Generate
#
# Say in the variables below what the picture
# should show, then press the play button. The
# same seed and settings give the same picture.

mutation Generate($input: GenerateInput!) {
  generate(input: $input) {
    __typename
    ... on Generation {
      id
      state
      tier
      delivery
      queuePosition
    }
    ... on InvalidInput {
      message
      fields {
        field
        message
      }
    }
    ... on UserError {
      message
    }
  }
}
`;

const WATCH = `# 3. Watch
#
# Press the play button to follow a generation
# to its end; the pictures then show at the top.
# ${LAST_GENERATION} in the variables, or an
# empty id, means the generation accepted last.
# Any other id can stand there instead.

subscription Watch($id: ID!) {
  generationStatus(id: $id) {
    state
    step
    totalSteps
    fraction
    generation {
      images {
        url
        width
        height
        seed
      }
    }
  }
}
`;

function variables(value: object): string {
  return JSON.stringify(value, null, 2);
}

/** What a first visit finds: the way from signing in to a picture, one tab a step. */
export const READY_TABS = [
  { query: SIGN_IN, variables: variables({ input: { email: "premium@darkroom.local", password: "" } }) },
  {
    query: GENERATE,
    variables: variables({
      input: { prompt: "a red house by the sea at sunset", seed: 20, steps: 20 },
    }),
  },
  { query: WATCH, variables: variables({ id: LAST_GENERATION }) },
] as const satisfies GraphiQLProps["defaultTabs"];
