import type { Answer } from "../shared/endpoint";
import { type JsonObject, isObject, textOrNull } from "../shared/json";

const STORAGE_KEY = "darkroom.lastGeneration";

/** What stands in a tab's variables where the id of the last accepted generation belongs. */
export const LAST_GENERATION = "LAST_GENERATION";

/** Remembers the last generation that this page had accepted, for operations that speak of it later. */
export class LastGeneration {
  readonly #storage: Storage;

  constructor({ storage }: { storage: Storage }) {
    this.#storage = storage;
  }

  remember(answer: Answer): void {
    const generation = answer.data?.["generate"];
    const id = isObject(generation) ? textOrNull(generation["id"]) : null;
    if (id !== null) {
      this.#storage.setItem(STORAGE_KEY, id);
    }
  }

  forget(): void {
    this.#storage.removeItem(STORAGE_KEY);
  }

  /** The variables with an `id` left open filled in, or null when there is no generation to name yet. */
  fill(variables: unknown): JsonObject | null {
    if (!isObject(variables)) {
      return {};
    }
    if (variables["id"] !== "" && variables["id"] !== LAST_GENERATION) {
      return variables;
    }
    const id = this.#storage.getItem(STORAGE_KEY);
    return id === null ? null : { ...variables, id };
  }
}
