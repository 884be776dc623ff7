import { type Client, type ClientOptions, createClient } from "graphql-ws";

import { socketAddress } from "./endpoint";
import type { SessionKeeper } from "./session";

/** Close codes of graphql-transport-ws for a caller that the server does not let in. */
export const NOT_LET_IN: ReadonlySet<number> = new Set([4401, 4403]);

/** Why the server ends a connection that it had let in: it comes in again with a fresh token. */
const EXPIRED = "Forbidden: the access token has expired";

/** A WebSocket that opens with the first subscription and, when it breaks, again with the token of that moment. */
export function openSocket(session: SessionKeeper, options: Partial<ClientOptions> = {}): Client {
  return createClient({
    url: socketAddress(),
    lazy: true,
    connectionParams: () => session.authorization(),
    shouldRetry: (reason) =>
      reason instanceof CloseEvent && (!NOT_LET_IN.has(reason.code) || reason.reason === EXPIRED),
    ...options,
  });
}
