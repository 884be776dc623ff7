import { Store } from "../shared/store";

export const THEMES = ["system", "dark", "light"] as const;
export type Theme = (typeof THEMES)[number];

const STORAGE_KEY = "darkroom.theme";

/** The chosen theme, marked on the document's root for the style sheet; `system` follows the device. */
export class Themes {
  readonly #store: Store<Theme>;
  readonly #storage: Storage;

  readonly read: () => Theme;
  readonly subscribe: (listener: () => void) => () => void;

  constructor({ storage }: { storage: Storage }) {
    this.#storage = storage;
    const stored = storage.getItem(STORAGE_KEY);
    this.#store = new Store(THEMES.find((theme) => theme === stored) ?? "system");
    this.read = this.#store.read;
    this.subscribe = this.#store.subscribe;
    document.documentElement.dataset["theme"] = this.read();
  }

  choose(theme: Theme): void {
    this.#storage.setItem(STORAGE_KEY, theme);
    document.documentElement.dataset["theme"] = theme;
    this.#store.write(theme);
  }
}
