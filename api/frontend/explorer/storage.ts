/** A secret's name, quoted or not, and the string literal after it (perhaps half typed), in JSON and in GraphQL. */
const SECRET_VALUE =
  /("?)\b(\w*(?:password|token)|authorization)\1(\s*:\s*)(?:"""[^]*?"""|"(?:[^"\\\n]|\\.)*"?)/gi;

/** GraphiQL's open tabs, history and favourites: editors' contents inside JSON. */
const CONTAINERS = new Set(["graphiql:tabState", "graphiql:queries", "graphiql:favorites"]);

/**
 * What GraphiQL keeps between visits, without what must not outlive one: passwords and tokens typed
 * into an operation or its variables are stored as empty strings, request headers not at all.
 */
export class EditorStorage {
  readonly #storage: Storage;

  constructor({ storage }: { storage: Storage }) {
    this.#storage = storage;
  }

  get length(): number {
    return this.#storage.length;
  }

  getItem(key: string): string | null {
    return this.#storage.getItem(key);
  }

  setItem(key: string, value: string): void {
    this.#storage.setItem(key, CONTAINERS.has(key) ? containerWithoutSecrets(value) : withoutSecrets(value));
  }

  removeItem(key: string): void {
    this.#storage.removeItem(key);
  }

  clear(): void {
    this.#storage.clear();
  }

  /** Whether the page has been here before, so that its tabs come from here and not from us. */
  get hasTabs(): boolean {
    return this.getItem("graphiql:tabState") !== null;
  }
}

function withoutSecrets(text: string): string {
  return text.replace(SECRET_VALUE, '$1$2$1$3""');
}

function containerWithoutSecrets(text: string): string {
  return JSON.stringify(JSON.parse(text), (name, value: unknown) => {
    if (name === "headers") {
      return null;
    }
    return typeof value === "string" ? withoutSecrets(value) : value;
  });
}
