import type { FormattedExecutionResult } from "graphql-ws";

import { type JsonObject, isObject } from "./json";

const ENDPOINT = "/graphql";

export interface Operation {
  query: string;
  operationName?: string | null;
  variables?: JsonObject;
}

export type Answer = FormattedExecutionResult<JsonObject>;

/** No GraphQL answer came back; the message says why in words meant for the person at the page. */
export class EndpointError extends Error {}

/** The server, or the network before it, did not answer at all. */
export class UnreachableError extends EndpointError {}

/** The WebSocket address of the endpoint on the host that served this page. */
export function socketAddress(): string {
  const address = new URL(ENDPOINT, window.location.href);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  return address.href;
}

/**
 * Sends one query or mutation and resolves with whatever GraphQL answered, errors included.
 * Rejects with UnreachableError when nothing answers, and with EndpointError when something else does.
 */
export async function post(operation: Operation, headers: Record<string, string>): Promise<Answer> {
  let response: Response;
  try {
    response = await fetch(ENDPOINT, {
      method: "POST",
      headers: {
        accept: "application/graphql-response+json, application/json;q=0.9",
        "content-type": "application/json",
        ...headers,
      },
      body: JSON.stringify(operation),
    });
  } catch {
    throw new UnreachableError("Darkroom cannot be reached. Is it running, and is this machine online?");
  }
  const answer: unknown = await response.json().catch(() => null);
  if (!isObject(answer) || !("data" in answer || "errors" in answer)) {
    throw new EndpointError(`The server answered with status ${response.status} and nothing that is GraphQL.`);
  }
  return answer as unknown as Answer;
}

/** Whether the server refused the whole operation because it does not know the caller. */
export function isUnauthenticated(answer: Answer): boolean {
  return (
    answer.data == null &&
    (answer.errors ?? []).some((problem) => problem.extensions?.["code"] === "UNAUTHENTICATED")
  );
}

/** Why a mutation did not give its success type: the union member's message, or the first error's. */
export function refusal(answer: Answer, field: string): string {
  const result = answer.data?.[field];
  if (isObject(result) && typeof result["message"] === "string") {
    return result["message"];
  }
  return answer.errors?.[0]?.message ?? "The server gave no reason.";
}

/** Why something that was asked of the endpoint failed. Rethrows what is not about the endpoint. */
export function inWords(error: unknown): string {
  if (error instanceof EndpointError) {
    return error.message;
  }
  throw error;
}
