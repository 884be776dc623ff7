import { useSyncExternalStore } from "react";

/** One value that the page shows, kept outside React so that the fetcher can change it too. */
export class Store<Value> {
  readonly #listeners = new Set<() => void>();
  #value: Value;

  constructor(initial: Value) {
    this.#value = initial;
  }

  readonly read = (): Value => this.#value;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  write(value: Value): void {
    this.#value = value;
    for (const listener of this.#listeners) {
      listener();
    }
  }
}

export function useStore<Value>(store: Pick<Store<Value>, "read" | "subscribe">): Value {
  return useSyncExternalStore(store.subscribe, store.read);
}
