// Sign in, ask for a picture, watch it being made, save it.
//
// npm ci
// DARKROOM_EMAIL=… DARKROOM_PASSWORD=… npm start "a red house at sunset" house.png

import { writeFile } from "node:fs/promises";
import { createClient } from "graphql-ws";
import WebSocket from "ws";

const url = process.env.DARKROOM_URL ?? "http://127.0.0.1:8000";

interface UserError {
  message: string;
  fields?: { field: string; message: string }[];
}

interface Status {
  state: "QUEUED" | "RUNNING" | "SUCCEEDED" | "FAILED" | "REJECTED" | "CANCELED";
  step: number;
  totalSteps: number;
  generation: { error: { message: string } | null; images: { url: string }[] };
}

/** The success of a mutation; its errors, and those of GraphQL, are thrown. */
async function ask<T>(query: string, input: object, token?: string): Promise<T> {
  const response = await fetch(`${url}/graphql`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      ...(token && { authorization: `Bearer ${token}` }),
    },
    body: JSON.stringify({ query, variables: { input } }),
  }).catch((error: Error) => {
    console.error(`No answer from ${url}: ${error.cause ?? error.message}`);
    process.exit(1);
  });
  const { data, errors } = (await response.json()) as {
    data?: Record<string, T | UserError>;
    errors?: UserError[];
  };
  const result = data && Object.values(data)[0];
  if (!result) throw new Error(errors?.[0]?.message ?? response.statusText);
  if (typeof result === "object" && "message" in result) {
    throw new Error(`${result.message} ${JSON.stringify(result.fields ?? "")}`);
  }
  return result as T;
}

const { accessToken } = await ask<{ accessToken: string }>(
  `mutation ($input: SigninInput!) {
    signin(input: $input) { ... on Session { accessToken } ... on UserError { message } }
  }`,
  { email: process.env.DARKROOM_EMAIL, password: process.env.DARKROOM_PASSWORD },
);

const [prompt, path] = process.argv.slice(2);
if (!prompt || !path) throw new Error("a prompt and a file are needed");
const { id } = await ask<{ id: string }>(
  `mutation ($input: GenerateInput!) {
    generate(input: $input) {
      ... on Generation { id }
      ... on InvalidInput { fields { field message } }
      ... on UserError { message }
    }
  }`,
  { prompt, delivery: "DOWNLOAD" },
  accessToken,
);

// A client that watches for longer than the token lives refreshes it in connectionParams.
const client = createClient({
  url: `${url.replace(/^http/, "ws")}/graphql`,
  webSocketImpl: WebSocket,
  connectionParams: { authorization: `Bearer ${accessToken}` },
});
let status: Status | undefined;
for await (const { data, errors } of client.iterate<{ generationStatus: Status }>({
  query: `subscription ($id: ID!) {
    generationStatus(id: $id) {
      state step totalSteps generation { error { message } images { url } }
    }
  }`,
  variables: { id },
})) {
  if (!data) throw new Error(errors?.[0]?.message);
  status = data.generationStatus;
  console.log(status.state, `step ${status.step} of ${status.totalSteps}`);
}
await client.dispose();

const image = status?.generation.images[0];
if (!image) throw new Error(status?.generation.error?.message ?? status?.state);
await writeFile(path, Buffer.from(await (await fetch(image.url)).arrayBuffer()));
console.log(path);
