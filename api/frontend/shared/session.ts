import { type Answer, inWords, isUnauthenticated, post, refusal } from "./endpoint";
import { RefreshSessionDocument, SignInDocument, SignOutDocument } from "./generated/operations";
import { type JsonObject, isObject, textOrNull } from "./json";
import { Store } from "./store";

const STORAGE_KEY = "darkroom.session";

const SESSION_OVER = "The session has ended. Please sign in again.";

/** How long before its end a session is renewed, and how soon after a failed attempt it is tried again. */
const RENEWAL_MARGIN_MS = 60_000;
const RETRY_MS = 30_000;

/** Timers count in 32 bits; a longer wait would fire at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

export interface Account {
  email: string | null;
  tier: string | null;
}

export interface Session {
  accessToken: string;
  /** Null when the operation that signed in did not ask for it: such a session ends at expiresAt. */
  refreshToken: string | null;
  expiresAt: string | null;
  account: Account | null;
}

export interface SessionState {
  session: Session | null;
  /** What the person should know: why signing in failed or why a session ended. Empty when all is well. */
  notice: string;
}

/** The session in a GraphQL result or in storage, or null when there is no access token in it. */
function readSession(value: unknown): Session | null {
  const accessToken = isObject(value) ? textOrNull(value["accessToken"]) : null;
  if (!isObject(value) || accessToken === null) {
    return null;
  }
  const account = value["account"];
  return {
    accessToken,
    refreshToken: textOrNull(value["refreshToken"]),
    expiresAt: textOrNull(value["expiresAt"]),
    account: isObject(account)
      ? { email: textOrNull(account["email"]), tier: textOrNull(account["tier"]) }
      : null,
  };
}

function millisecondsLeft(session: Session): number {
  const end = Date.parse(session.expiresAt ?? "");
  return Number.isNaN(end) ? Number.POSITIVE_INFINITY : end - Date.now();
}

/** A refused renewal is final; an unreachable, overloaded or failing server is asked again later. */
function endsSession(answer: Answer): boolean {
  const result = answer.data?.["refreshSession"];
  return isUnauthenticated(answer) || (isObject(result) && result["__typename"] !== "RateLimited");
}

/**
 * Who is signed in on this page.
 *
 * The tokens stay in memory and in the given storage: sessionStorage for as long as the browser tab
 * lives, localStorage for all tabs and until signing out. They reach the server in the authorization
 * header and in connectionParams, never in an address.
 */
export class SessionKeeper {
  readonly #store = new Store<SessionState>({ session: null, notice: "" });
  readonly #storage: Storage;
  #renewal: Promise<void> | null = null;
  #timer: number | undefined;

  constructor({ storage }: { storage: Storage }) {
    this.#storage = storage;
    const session = this.#stored();
    if (session !== null) {
      this.#store.write({ session, notice: "" });
      this.#renewBeforeEnd(session);
    }
    // Told only of what other tabs do to a storage that they share.
    window.addEventListener("storage", (event) => {
      if (event.storageArea === storage && (event.key === STORAGE_KEY || event.key === null)) {
        this.#follow();
      }
    });
  }

  readonly read = this.#store.read;
  readonly subscribe = this.#store.subscribe;

  /** Signs in; a failure of any kind ends up as the notice. Resolves with whether it worked. */
  async signIn(email: string, password: string): Promise<boolean> {
    this.#notify("");
    try {
      const answer = await post({ query: SignInDocument.toString(), variables: { input: { email, password } } }, {});
      if (this.adopt(answer)) {
        return true;
      }
      this.#notify(refusal(answer, "signin"));
    } catch (error) {
      this.#notify(inWords(error));
    }
    return false;
  }

  /** Takes over the session in an answer to `signin` or `refreshSession`, whoever sent the mutation. */
  adopt(answer: Answer): boolean {
    const signedIn = readSession(answer.data?.["signin"]);
    if (signedIn !== null) {
      this.#begin(signedIn);
      return true;
    }
    const renewed = readSession(answer.data?.["refreshSession"]);
    if (renewed !== null) {
      this.#begin({ ...renewed, account: renewed.account ?? this.read().session?.account ?? null });
      return true;
    }
    return false;
  }

  /** What a request carries to say who sends it: empty when nobody is signed in. */
  async authorization(): Promise<Record<string, string>> {
    const { session } = this.read();
    if (session !== null && millisecondsLeft(session) <= 0) {
      await this.renew();
    }
    const accessToken = this.read().session?.accessToken;
    return accessToken === undefined ? {} : { authorization: `Bearer ${accessToken}` };
  }

  /** Exchanges the refresh token for a new session, or ends the session when that is refused. */
  renew(): Promise<void> {
    // A refresh token counts once: whoever asks meanwhile waits for the exchange under way.
    this.#renewal ??= oneTabAtATime(() => this.#exchange()).finally(() => {
      this.#renewal = null;
    });
    return this.#renewal;
  }

  async signOut(): Promise<void> {
    const headers = await this.authorization();
    this.end("");
    try {
      await post({ query: SignOutDocument.toString() }, headers);
    } catch {
      // This page has forgotten the tokens already; on the server they run out by themselves.
    }
  }

  /** Forgets the session, which is over on the server or soon will be; the notice says why. */
  end(notice: string): void {
    window.clearTimeout(this.#timer);
    this.#storage.removeItem(STORAGE_KEY);
    this.#store.write({ session: null, notice });
  }

  async #exchange(): Promise<void> {
    const { session } = this.read();
    if (session === null) {
      return;
    }
    const stored = this.#stored();
    if (stored !== null && stored.accessToken !== session.accessToken) {
      // Another tab was first. Its new token counts; the one that it traded in would end the session.
      this.#begin(stored);
      return;
    }
    if (session.refreshToken === null) {
      this.end(SESSION_OVER);
      return;
    }
    let answer: Answer;
    try {
      const { refreshToken } = session;
      answer = await post({ query: RefreshSessionDocument.toString(), variables: { refreshToken } }, {});
    } catch (error) {
      answer = { errors: [{ message: inWords(error) }] };
    }
    if (this.read().session !== session) {
      // Signed out, or in as somebody else, while the answer was on its way.
      return;
    }
    if (this.adopt(answer)) {
      return;
    }
    if (endsSession(answer)) {
      // The answer speaks of the token, which is the program's concern.
      this.end(SESSION_OVER);
    } else {
      this.#notify(refusal(answer, "refreshSession"));
      this.#renewAfter(RETRY_MS);
    }
  }

  #begin(received: Session): void {
    // Over at the moment it arrives means that the two clocks disagree: let the server say when it is.
    const session = millisecondsLeft(received) > 0 ? received : { ...received, expiresAt: null };
    this.#storage.setItem(STORAGE_KEY, JSON.stringify(session));
    this.#store.write({ session, notice: "" });
    this.#renewBeforeEnd(session);
  }

  /** Another tab signed in, renewed or signed out. */
  #follow(): void {
    const stored = this.#stored();
    if (stored === null) {
      this.end("");
    } else if (stored.accessToken !== this.read().session?.accessToken) {
      this.#store.write({ session: stored, notice: "" });
      this.#renewBeforeEnd(stored);
    }
  }

  #notify(notice: string): void {
    this.#store.write({ ...this.read(), notice });
  }

  #renewBeforeEnd(session: Session): void {
    const left = millisecondsLeft(session);
    const margin = session.refreshToken === null ? 0 : Math.min(RENEWAL_MARGIN_MS, left / 2);
    this.#renewAfter(left - margin);
  }

  #renewAfter(milliseconds: number): void {
    window.clearTimeout(this.#timer);
    if (Number.isFinite(milliseconds)) {
      const wait = Math.min(Math.max(milliseconds, 0), LONGEST_TIMER_MS);
      this.#timer = window.setTimeout(() => void this.renew(), wait);
    }
  }

  #stored(): Session | null {
    try {
      const stored: JsonObject | null = JSON.parse(this.#storage.getItem(STORAGE_KEY) ?? "null");
      return readSession(stored);
    } catch {
      return null;
    }
  }
}

/** Locks are to be had on secure origins only; elsewhere the server's grace for a reused token has to do. */
function oneTabAtATime(work: () => Promise<void>): Promise<void> {
  return "locks" in navigator ? navigator.locks.request(STORAGE_KEY, work) : work();
}
