import type { GraphiQLProps } from "graphiql";

import { LAST_GENERATION } from "./generation";

const SIGN_UP = `# 1. Sign up
#
# Write your address and a password into the
# variables below and press the play button. A
# letter with a link follows; with \`make up\` it
# is at /inbox. The ready-made accounts need none
# of this: go on with the next tab.

mutation SignUp($input: SignupInput!) {
  signup(input: $input) {
    __typename
    ... on SignupAccepted {
      message
    }
    ... on InvalidInput {
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

const SIGN_IN = `# 2. Sign in
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

const GENERATE = `# 3. Generate
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
      estimatedFinishAt
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

const WATCH = `# 4. Watch
#
# Press the play button to follow a generation
# to its end. Below the answer you see it come
# into being, and then the pictures.
# ${LAST_GENERATION} in the variables, or an
# empty id, means the generation accepted last.
# Any other id can stand there instead.

subscription Watch($id: ID!) {
  generationStatus(id: $id, previews: true) {
    state
    step
    totalSteps
    fraction
    queuePosition
    etaSeconds
    preview
    generation {
      error {
        message
      }
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

const MY_PICTURES = `# 5. My pictures
#
# The newest come first, and show below the
# answer. For older ones write the endCursor of
# this page into the variables as "after".

query MyPictures($first: Int!, $after: String) {
  generations(first: $first, after: $after) {
    edges {
      node {
        id
        prompt
        state
        createdAt
        images {
          url
          width
          height
          seed
        }
      }
    }
    pageInfo {
      hasNextPage
      endCursor
    }
  }
}
`;

const BUY_PREMIUM = `# 6. Buy premium
#
# Two operations: the play button asks which.
# Offers lists what is for sale; nothing is
# where no card payment is set up. BuyPremium
# answers with the address of a page to pay on.

query Offers {
  offers {
    id
    days
    price
    currency
  }
}

mutation BuyPremium($input: BuyPremiumInput!) {
  buyPremium(input: $input) {
    __typename
    ... on Checkout {
      url
      expiresAt
    }
    ... on UserError {
      message
    }
  }
}
`;

function variables(value: object): string {
  return JSON.stringify(value, null, 2);
}

/** What a first visit finds: the way from signing up to a picture and beyond, one tab a step. */
export const READY_TABS = [
  { query: SIGN_UP, variables: variables({ input: { email: "", password: "" } }) },
  { query: SIGN_IN, variables: variables({ input: { email: "premium@darkroom.local", password: "" } }) },
  {
    query: GENERATE,
    variables: variables({
      input: { prompt: "a red house by the sea at sunset", seed: 20, steps: 20 },
    }),
  },
  { query: WATCH, variables: variables({ id: LAST_GENERATION }) },
  { query: MY_PICTURES, variables: variables({ first: 10, after: null }) },
  { query: BUY_PREMIUM, variables: variables({ input: { offer: "month" } }) },
] as const satisfies GraphiQLProps["defaultTabs"];
