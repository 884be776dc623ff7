import type { Answer } from "../shared/endpoint";
import { isObject } from "../shared/json";
import { Store } from "../shared/store";

export interface Picture {
  url: string;
  /** What is known of the picture, for those who cannot see it. */
  description: string;
  /** Whether it is a picture that is still being made. */
  isPreview: boolean;
}

/** The pictures of the latest answer that had any, of each tab its own. */
export class Pictures {
  readonly #ofTabs = new Map<string, readonly Picture[]>();
  readonly #store = new Store<readonly Picture[]>([]);
  #tab = "";

  /** Those of the tab that is open. */
  readonly read = this.#store.read;
  readonly subscribe = this.#store.subscribe;

  openTab(id: string): void {
    this.#tab = id;
    this.#store.write(this.#ofTabs.get(id) ?? []);
  }

  /** What takes the answers of an operation that begins now: they are its tab's, although another is open by then. */
  ofThisTab(): (answer: Answer) => void {
    const tab = this.#tab;
    return (answer) => {
      const finished = picturesIn(answer.data);
      const found = finished.length > 0 ? finished : previewsIn(answer.data);
      if (found.length > 0) {
        this.#keep(tab, found);
      }
    };
  }

  hide(): void {
    this.#keep(this.#tab, []);
  }

  clear(): void {
    this.#ofTabs.clear();
    this.#store.write([]);
  }

  #keep(tab: string, found: readonly Picture[]): void {
    this.#ofTabs.set(tab, found);
    if (tab === this.#tab) {
      this.#store.write(found);
    }
  }
}

/** Every entry with a usable address in any list called `images`, in the order of the answer. */
function picturesIn(value: unknown): Picture[] {
  if (Array.isArray(value)) {
    return value.flatMap(picturesIn);
  }
  if (!isObject(value)) {
    return [];
  }
  return Object.entries(value).flatMap(([name, inner]) =>
    name === "images" && Array.isArray(inner) ? inner.flatMap(toPicture) : picturesIn(inner),
  );
}

/** Every `preview` of a status in the answer. */
function previewsIn(data: unknown): Picture[] {
  if (!isObject(data)) {
    return [];
  }
  return Object.values(data).flatMap((status) => {
    if (!isObject(status) || typeof status["preview"] !== "string" || !status["preview"].startsWith("data:image/")) {
      return [];
    }
    return [{ url: status["preview"], description: "Preview of the picture being made", isPreview: true }];
  });
}

function toPicture(image: unknown): Picture[] {
  if (!isObject(image) || typeof image["url"] !== "string") {
    return [];
  }
  if (!URL.canParse(image["url"], window.location.href)) {
    return [];
  }
  const address = new URL(image["url"], window.location.href);
  if (!["http:", "https:"].includes(address.protocol)) {
    return [];
  }
  const { width, height, seed } = image;
  const facts = [
    typeof width === "number" && typeof height === "number" ? `${width} × ${height}` : null,
    typeof seed === "number" || typeof seed === "string" ? `seed ${seed}` : null,
  ].filter((fact) => fact !== null);
  return [{ url: address.href, description: ["Generated picture", ...facts].join(", "), isPreview: false }];
}
