import { type SubmitEvent, useEffect, useId, useRef, useState } from "react";

import type { Session, SessionKeeper } from "../shared/session";
import { useStore } from "../shared/store";

/** The top of the page: who is signed in, or the form to become it. */
export function SignInBar({ keeper }: { keeper: SessionKeeper }) {
  const { session, notice } = useStore(keeper);
  const bar = useFocusAfterSwap(session !== null);

  return (
    <header className="darkroom-bar" ref={bar}>
      <h1>
        <a href="/" title="The studio">
          Darkroom
        </a>
      </h1>
      <p role="alert" className="darkroom-notice" data-testid="session-notice">
        {notice}
      </p>
      <p role="status" className="darkroom-account" data-testid="session-account">
        {session !== null && <SignedIn session={session} />}
      </p>
      {session === null ? (
        <SignInForm keeper={keeper} />
      ) : (
        <button type="button" data-testid="sign-out" onClick={() => void keeper.signOut()}>
          Sign out
        </button>
      )}
    </header>
  );
}

function SignedIn({ session: { account } }: { session: Session }) {
  return (
    <>
      Signed in{account?.email && <> as <strong>{account.email}</strong></>}{" "}
      {account?.tier && <span className="darkroom-tier">{account.tier.toLowerCase()}</span>}
    </>
  );
}

function SignInForm({ keeper }: { keeper: SessionKeeper }) {
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const [busy, setBusy] = useState(false);
  const emailId = useId();
  const passwordId = useId();

  async function submit(event: SubmitEvent<HTMLFormElement>) {
    event.preventDefault();
    setBusy(true);
    try {
      await keeper.signIn(email, password);
    } finally {
      setBusy(false);
    }
  }

  return (
    <form aria-label="Sign in" onSubmit={(event) => void submit(event)}>
      <label htmlFor={emailId}>E-mail</label>
      <input
        id={emailId}
        type="email"
        autoComplete="username"
        required
        data-testid="sign-in-email"
        value={email}
        onChange={(event) => setEmail(event.target.value)}
      />
      <label htmlFor={passwordId}>Password</label>
      <input
        id={passwordId}
        type="password"
        autoComplete="current-password"
        required
        data-testid="sign-in-password"
        value={password}
        onChange={(event) => setPassword(event.target.value)}
      />
      <button type="submit" disabled={busy} data-testid="sign-in">
        {busy ? "Signing in…" : "Sign in"}
      </button>
    </form>
  );
}

/**
 * Signing in and out replaces the control that has the keyboard focus. The first control of what came
 * instead takes it then; a focus that was elsewhere on the page stays where it is.
 */
function useFocusAfterSwap(signedIn: boolean) {
  const bar = useRef<HTMLElement>(null);
  const before = useRef(signedIn);
  useEffect(() => {
    if (before.current !== signedIn && document.activeElement === document.body) {
      bar.current?.querySelector<HTMLElement>("input, button")?.focus();
    }
    before.current = signedIn;
  }, [signedIn]);
  return bar;
}
