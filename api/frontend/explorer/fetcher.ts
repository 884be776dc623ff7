import type { Fetcher } from "@graphiql/toolkit";
import { GraphQLError, Kind, type OperationDefinitionNode, getOperationAST, parse } from "graphql";

import { postAs } from "../shared/access";
import { type Answer, EndpointError, type Operation } from "../shared/endpoint";
import type { JsonObject } from "../shared/json";
import type { SessionKeeper } from "../shared/session";
import { NOT_LET_IN, openSocket } from "../shared/socket";
import { LAST_GENERATION, type LastGeneration } from "./generation";
import type { Pictures } from "./pictures";

interface Collaborators {
  session: SessionKeeper;
  pictures: Pictures;
  lastGeneration: LastGeneration;
}

/** GraphiQL's way to the server: queries and mutations over HTTP, subscriptions over a WebSocket. */
export function createFetcher({ session, pictures, lastGeneration }: Collaborators): Fetcher {
  async function run({ query, operationName, variables }: Operation, headers: Record<string, string>) {
    const showPictures = pictures.ofThisTab();
    const observe = (answer: Answer): Answer => {
      session.adopt(answer);
      lastGeneration.remember(answer);
      showPictures(answer);
      return answer;
    };
    const filled = lastGeneration.fill(variables);
    if (filled === null) {
      return failure(
        `The id is ${LAST_GENERATION}, and no generation has been accepted on this page yet: ` +
          "run the Generate tab first, or write an id into the variables.",
      );
    }
    const definition = operationToRun(query, operationName);
    const name = definition?.name?.value ?? operationName;
    const operation = { query, variables: filled, ...(name ? { operationName: name } : {}) };
    if (definition?.operation === "subscription") {
      return subscribe(operation, session, observe);
    }
    return observe(await send(operation, session, headers));
  }

  // GraphiQL's type wants errors as instances of GraphQLError; it only ever prints them as JSON.
  return (params, options) => run(params, options?.headers ?? {}) as ReturnType<Fetcher>;
}

function failure(message: string): Answer {
  return { errors: [{ message }] };
}

/**
 * The operation meant by a document and a name, or undefined when the server has to say what is wrong.
 * The only operation of a document is meant whatever the name is: right after a change of tabs GraphiQL
 * still gives the name that belongs to the tab before.
 */
function operationToRun(query: string, name: string | null | undefined): OperationDefinitionNode | undefined {
  try {
    const document = parse(query);
    const operations = document.definitions.filter((node) => node.kind === Kind.OPERATION_DEFINITION);
    return operations.length === 1 ? operations[0] : (getOperationAST(document, name) ?? undefined);
  } catch (error) {
    if (error instanceof GraphQLError) {
      return undefined;
    }
    throw error;
  }
}

async function send(
  operation: Operation,
  session: SessionKeeper,
  headers: Record<string, string>,
): Promise<Answer> {
  try {
    return await postAs(session, operation, headers);
  } catch (error) {
    if (error instanceof EndpointError) {
      return failure(error.message);
    }
    throw error;
  }
}

/**
 * Every subscription has a connection of its own, so that it runs as whoever is signed in when it
 * starts. A connection that breaks is opened again with the token of that moment.
 */
function subscribe(
  operation: Operation,
  session: SessionKeeper,
  observe: (answer: Answer) => Answer,
): AsyncIterable<Answer> {
  const events = openSocket(session).iterate<JsonObject, JsonObject>(operation);

  async function next(): Promise<IteratorResult<Answer>> {
    try {
      const event = await events.next();
      return event.done ? event : { done: false, value: observe(event.value) };
    } catch (reason) {
      return { done: false, value: subscriptionFailure(reason) };
    }
  }

  return {
    [Symbol.asyncIterator]: () => ({
      next,
      return: async () => (await events.return?.()) ?? { done: true, value: undefined },
    }),
  };
}

/** What ended a subscription, as an answer: the server's errors, or the connection's fate in words. */
function subscriptionFailure(reason: unknown): Answer {
  if (Array.isArray(reason)) {
    return { errors: reason };
  }
  if (!(reason instanceof CloseEvent)) {
    return failure("The connection for this subscription could not be opened or kept.");
  }
  const closed = `The server closed the connection: ${reason.code} ${reason.reason}`.trim();
  return failure(NOT_LET_IN.has(reason.code) ? `${closed}. Sign in and run this again.` : closed);
}
