import { type Answer, type Operation, isUnauthenticated, post } from "./endpoint";
import type { SessionKeeper } from "./session";

/**
 * Sends one query or mutation as whoever is signed in. A token that the server no longer takes is
 * renewed once; rejects as `post` does.
 */
export async function postAs(
  session: SessionKeeper,
  operation: Operation,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const authorization = await session.authorization();
  const answer = await post(operation, { ...authorization, ...headers });
  if (!isUnauthenticated(answer) || !("authorization" in authorization)) {
    return answer;
  }
  // Nothing has run, so the operation can be sent again: with a new token or, when the session is
  // over, with none, which is all that `signin` needs.
  await session.renew();
  return post(operation, { ...(await session.authorization()), ...headers });
}
