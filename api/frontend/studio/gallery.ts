import { inWords } from "../shared/endpoint";
import { Store } from "../shared/store";
import type { Client } from "./client";
import {
  CancelDocument,
  GalleryDocument,
  type GenerationPartsFragment as Generation,
  OneGenerationDocument,
  WatchDocument,
  type WatchSubscription,
} from "../shared/generated/operations";

export type { Generation };
export type Picture = Generation["images"][number];
export type Progress = Pick<
  WatchSubscription["generationStatus"],
  "step" | "totalSteps" | "fraction" | "queuePosition" | "etaSeconds" | "preview"
>;

export interface GalleryState {
  /** Newest first. */
  generations: readonly Generation[];
  /** What was last told of those that have not ended, by id. */
  progress: ReadonlyMap<string, Progress>;
  /** Where the next page begins. */
  cursor: string | null;
  loading: boolean;
  complete: boolean;
  problem: string;
}

const PAGE = 24;

/** A normal account may have ten live subscriptions; some are left for its other tabs. */
const MOST_WATCHED = 6;

/** After a watch could not be opened, or ended before the generation did. */
const WATCH_AGAIN_MS = 5_000;

/** A signed link is taken as expired so long before it is. */
const LINK_MARGIN_MS = 60_000;

export function isOpen({ state }: Pick<Generation, "state">): boolean {
  return state === "QUEUED" || state === "RUNNING";
}

/** The account's generations: page by page as they are scrolled to, and live until they have ended. */
export class Gallery {
  readonly #store = new Store<GalleryState>({
    generations: [],
    progress: new Map(),
    cursor: null,
    loading: false,
    complete: false,
    problem: "",
  });
  readonly #client: Client;
  readonly #ended: (generation: Generation) => void;
  readonly #watches = new Map<string, () => void>();
  #stopped = false;

  readonly read = this.#store.read;
  readonly subscribe = this.#store.subscribe;

  /** `ended` is called for each generation that reaches its end while it is watched. */
  constructor({ client, ended }: { client: Client; ended: (generation: Generation) => void }) {
    this.#client = client;
    this.#ended = ended;
  }

  /** Loads the next page; at once nothing if one is under way or there is none. */
  async more(): Promise<void> {
    const { loading, complete, cursor } = this.read();
    if (loading || complete || this.#stopped) {
      return;
    }
    this.#change({ loading: true, problem: "" });
    try {
      const { generations } = await this.#client.execute(GalleryDocument, { first: PAGE, after: cursor });
      const found = generations.edges.map(({ node }) => node).filter(({ state }) => state !== "CANCELED");
      const known = new Set(this.read().generations.map(({ id }) => id));
      this.#change({
        generations: [...this.read().generations, ...found.filter(({ id }) => !known.has(id))],
        cursor: generations.pageInfo.endCursor,
        loading: false,
        complete: !generations.pageInfo.hasNextPage,
      });
      this.#watch();
    } catch (error) {
      this.#change({ loading: false, problem: inWords(error) });
    }
  }

  /** Shows a generation that was just accepted, and watches it. */
  add(generation: Generation): void {
    if (!this.read().generations.some(({ id }) => id === generation.id)) {
      this.#change({ generations: [generation, ...this.read().generations] });
    }
    this.#watch();
  }

  /** Cancels; resolves with the reason where that was refused, else with nothing. */
  async cancel(id: string): Promise<string> {
    try {
      const { cancelGeneration } = await this.#client.execute(CancelDocument, { id });
      if (cancelGeneration.__typename === "Generation") {
        this.#replace(cancelGeneration);
        return "";
      }
      return cancelGeneration.message;
    } catch (error) {
      return inWords(error);
    }
  }

  /** Fetches a generation again whose signed links have expired, or are about to. */
  readonly freshen = (generation: Generation): void => {
    if (generation.images.some(({ url }) => url !== null && isExpiring(url))) {
      void this.#look(generation.id).catch(() => undefined);
    }
  };

  /** Ends every watch; the gallery is done with. */
  stop(): void {
    this.#stopped = true;
    for (const end of this.#watches.values()) {
      end();
    }
    this.#watches.clear();
  }

  /** Watches the oldest of those that have not ended, which are the next to end. */
  #watch(): void {
    const open = this.read().generations.filter(isOpen).reverse();
    for (const { id } of open.slice(0, MOST_WATCHED)) {
      if (!this.#watches.has(id) && !this.#stopped) {
        void this.#follow(id);
      }
    }
  }

  async #follow(id: string): Promise<void> {
    const events = this.#client.events(WatchDocument, { id });
    let timer: number | undefined;
    this.#watches.set(id, () => {
      window.clearTimeout(timer);
      void events.return?.();
    });
    try {
      for await (const { data } of events) {
        if (data != null) {
          this.#take(data.generationStatus);
        }
      }
    } catch {
      // Too many are watched, or the server would not go on: it is asked once, and watched again later.
      await this.#look(id).catch(() => undefined);
    }
    if (this.#stopped) {
      return;
    }
    const still = this.read().generations.some((one) => one.id === id && isOpen(one));
    timer = window.setTimeout(
      () => {
        this.#watches.delete(id);
        this.#watch();
      },
      still ? WATCH_AGAIN_MS : 0,
    );
  }

  async #look(id: string): Promise<void> {
    const { generation } = await this.#client.execute(OneGenerationDocument, { id });
    if (generation === null) {
      this.#change({ generations: this.read().generations.filter((one) => one.id !== id) });
    } else {
      this.#replace(generation);
    }
  }

  #take({ generation, ...event }: WatchSubscription["generationStatus"]): void {
    const before = this.read().progress.get(generation.id);
    const progress = new Map(this.read().progress);
    progress.set(generation.id, { ...event, preview: event.preview ?? before?.preview ?? null });
    this.#change({ progress });
    this.#replace(generation);
  }

  #replace(generation: Generation): void {
    const before = this.read().generations.find(({ id }) => id === generation.id);
    this.#change({
      generations: this.read().generations.map((one) => (one.id === generation.id ? generation : one)),
    });
    if (before !== undefined && isOpen(before) && !isOpen(generation)) {
      this.#ended(generation);
    }
  }

  #change(change: Partial<GalleryState>): void {
    this.#store.write({ ...this.read(), ...change });
  }
}

function isExpiring(url: string): boolean {
  const expires = Number(new URL(url, window.location.href).searchParams.get("expires"));
  return expires > 0 && expires * 1000 - Date.now() < LINK_MARGIN_MS;
}
