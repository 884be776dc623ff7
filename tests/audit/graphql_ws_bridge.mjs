// Speaks for the npm package graphql-ws: does what each line of its input says, and tells what happens, one JSON
// object a line. So that its client, and no imitation, meets the service in the tests.
import { createInterface } from "node:readline";
import { createClient } from "graphql-ws";

const tell = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const told = (error) =>
  error?.constructor?.name === "CloseEvent" || "code" in (error ?? {})
    ? { code: error.code, reason: error.reason }
    : { message: String(error?.message ?? error), errors: Array.isArray(error) ? error : undefined };

let client;
const running = new Map();

const actions = {
  create({ url, connectionParams, options = {} }) {
    const retryWait = () => new Promise((resolve) => setTimeout(resolve, 100));
    client = createClient({ url, connectionParams, retryWait, ...options });
    for (const event of ["connecting", "opened", "connected", "ping", "pong", "closed", "error"]) {
      client.on(event, (...values) => {
        const last = values.at(-1);
        const about = event === "closed" || event === "error" ? told(last) : { payload: last };
        tell({ on: event, ...(event === "opened" ? {} : about) });
      });
    }
  },
  subscribe({ key, payload }) {
    running.set(key, client.subscribe(payload, {
      next: (value) => tell({ sink: "next", key, value }),
      error: (error) => tell({ sink: "error", key, ...told(error) }),
      complete: () => tell({ sink: "complete", key }),
    }));
  },
  unsubscribe({ key }) {
    running.get(key)();
  },
  terminate() {
    client.terminate();
  },
  dispose() {
    client.dispose();
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { action, ...values } = JSON.parse(line);
  actions[action](values);
}
process.exit(0);
