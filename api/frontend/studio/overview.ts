import { inWords } from "../shared/endpoint";
import { Store } from "../shared/store";
import type { Client } from "./client";
import {
  type AccountPartsFragment as Account,
  NextWindowDocument,
  StudioDocument,
  type StudioQuery,
} from "./generated/operations";

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

/** What the service says of the account, the models and the next window. */
export class Overview {
  readonly #store = new Store<OverviewState>({ account: null, models: [], nextWindowAt: null, problem: "" });
  readonly #client: Client;

  readonly read = this.#store.read;
  readonly subscribe = this.#store.subscribe;

  constructor({ client }: { client: Client }) {
    this.#client = client;
  }

  async load(): Promise<void> {
    try {
      const { me, models, service } = await this.#client.execute(StudioDocument, {});
      this.#store.write({ account: me, models, nextWindowAt: service.nextWindowAt, problem: "" });
    } catch (error) {
      this.#store.write({ ...this.read(), problem: inWords(error) });
    }
  }

  /** Asks when the next window opens: the one that was told has. */
  async lookAtClock(): Promise<void> {
    try {
      const { service } = await this.#client.execute(NextWindowDocument, {});
      this.#store.write({ ...this.read(), nextWindowAt: service.nextWindowAt });
    } catch {
      // The connection is looked after elsewhere; the countdown asks again.
    }
  }

  setAccount(account: Account): void {
    this.#store.write({ ...this.read(), account });
  }
}
