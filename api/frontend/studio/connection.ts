import { Store } from "../shared/store";

/** `offline`: this device has no network. `unreachable`: it has, and the service does not answer. */
export type Reach = "online" | "offline" | "unreachable";

const PROBE = "/health/live";
const PROBE_EVERY_MS = 3_000;

/** Whether the service can be reached. While it cannot, it is asked again until it answers. */
export class Connection {
  readonly #store = new Store<Reach>(navigator.onLine ? "online" : "offline");
  #timer: number | undefined;

  readonly read = this.#store.read;
  readonly subscribe = this.#store.subscribe;

  constructor() {
    window.addEventListener("offline", () => this.#become("offline"));
    window.addEventListener("online", () => void this.#probe());
  }

  /** Something was answered. */
  worked(): void {
    window.clearTimeout(this.#timer);
    this.#become("online");
  }

  /** Something was not answered, or a socket broke. */
  failed(): void {
    this.#become(navigator.onLine ? "unreachable" : "offline");
    window.clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => void this.#probe(), PROBE_EVERY_MS);
  }

  async #probe(): Promise<void> {
    try {
      const response = await fetch(PROBE, { cache: "no-store" });
      if (response.ok) {
        this.worked();
        return;
      }
    } catch {
      // Told below.
    }
    this.failed();
  }

  #become(reach: Reach): void {
    if (this.read() !== reach) {
      this.#store.write(reach);
    }
  }
}
