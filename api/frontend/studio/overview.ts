import { inWords } from "../shared/endpoint";
import { Store } from "../shared/store";
import type { Client } from "./client";
import {
  type AccountPartsFragment as Account,
  NextWindowDocument,
  StudioDocument,
  type StudioQuery,
} from "../shared/generated/operations";

export type { Account };
export type Model = StudioQuery["models"][number];

export interface OverviewState {
  account: Account | null;
  /** Those on offer; the first is the default. */
  models: readonly Model[];
  /** When the next batch window opens, where the service has said so. */
  nextWindowAt: string | null;
  problem: string;
}

/** A window that has opened is followed by the next within moments. */
const LOOK_AGAIN_MS = 1_000;

/** What the service says of the account, the models and the next window. */
export class Overview {
  readonly #store = new Store<OverviewState>({ account: null, models: [], nextWindowAt: null, problem: "" });
  readonly #client: Client;
  #timer: number | undefined;

  readonly read = this.#store.read;
  readonly subscribe = this.#store.subscribe;

  constructor({ client }: { client: Client }) {
    this.#client = client;
  }

  async load(): Promise<void> {
    try {
      const { me, models, service } = await this.#client.execute(StudioDocument, {});
      this.#store.write({ account: me, models, nextWindowAt: service.nextWindowAt, problem: "" });
      this.#awaitWindow();
    } catch (error) {
      this.#store.write({ ...this.read(), problem: inWords(error) });
    }
  }

  setAccount(account: Account): void {
    this.#store.write({ ...this.read(), account });
  }

  /** The overview is done with. */
  stop(): void {
    window.clearTimeout(this.#timer);
  }

  /** Asks when the next window opens once this one has. */
  #awaitWindow(): void {
    const { nextWindowAt } = this.read();
    window.clearTimeout(this.#timer);
    if (nextWindowAt !== null) {
      const left = Date.parse(nextWindowAt) - Date.now();
      this.#timer = window.setTimeout(() => void this.#lookAtClock(), Math.max(left, LOOK_AGAIN_MS));
    }
  }

  async #lookAtClock(): Promise<void> {
    try {
      const { service } = await this.#client.execute(NextWindowDocument, {});
      this.#store.write({ ...this.read(), nextWindowAt: service.nextWindowAt });
    } catch {
      // The connection is looked after elsewhere, and the clock is looked at again.
    }
    this.#awaitWindow();
  }
}
