import type { Client as SocketClient } from "graphql-ws";

import { postAs } from "../shared/access";
import { EndpointError, UnreachableError } from "../shared/endpoint";
import type { JsonObject } from "../shared/json";
import type { SessionKeeper } from "../shared/session";
import { openSocket } from "../shared/socket";
import type { Connection } from "./connection";
import type { TypedDocumentString } from "../shared/generated/operations";

const LONGEST_RETRY_MS = 5_000;

/** The studio's way to the api: typed operations over HTTP, and one socket for everything that is watched. */
export class Client {
  readonly #session: SessionKeeper;
  readonly #connection: Connection;
  readonly #socket: SocketClient;

  constructor({ session, connection }: { session: SessionKeeper; connection: Connection }) {
    this.#session = session;
    this.#connection = connection;
    this.#socket = openSocket(session, {
      retryAttempts: Number.POSITIVE_INFINITY,
      retryWait: (retries) => pause(Math.random() * Math.min(LONGEST_RETRY_MS, 500 * 2 ** retries)),
      on: {
        connected: () => connection.worked(),
        closed: (event) => {
          if (event instanceof CloseEvent && !event.wasClean) {
            connection.failed();
          }
        },
      },
    });
  }

  /** Resolves with the data. Rejects with EndpointError, whose message is for the person at the page. */
  async execute<Result, Variables extends JsonObject>(
    document: TypedDocumentString<Result, Variables>,
    variables: Variables,
  ): Promise<Result> {
    try {
      const answer = await postAs(this.#session, { query: document.toString(), variables });
      this.#connection.worked();
      if (answer.data == null || answer.errors?.length) {
        throw new EndpointError(answer.errors?.[0]?.message ?? "The server gave no reason.");
      }
      return answer.data as Result;
    } catch (error) {
      if (error instanceof UnreachableError) {
        this.#connection.failed();
      }
      throw error;
    }
  }

  /** The events of a subscription until it completes; returning from the iterator ends it. */
  events<Result, Variables extends JsonObject>(
    document: TypedDocumentString<Result, Variables>,
    variables: Variables,
  ): AsyncIterableIterator<{ data?: Result | null | undefined }> {
    return this.#socket.iterate<Result & JsonObject>({ query: document.toString(), variables });
  }
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => {
    window.setTimeout(resolve, milliseconds);
  });
}
