import { Button } from "@base-ui/react/button";
import { Form } from "@base-ui/react/form";
import { type ReactNode, createContext, useContext, useEffect, useRef, useState } from "react";

import { byField, useAttempt } from "./attempt";
import { TextField } from "./fields";
import { RequestPasswordResetDocument, SignInDocument, SignUpDocument } from "./generated/operations";
import { Mark } from "./icons";
import { useServices } from "./services";

type Way = "in" | "up" | "forgotten";
type Credentials = Record<"email" | "password", string>;

/** Whether this is not the first way that was shown: then its heading takes the focus. */
const Moved = createContext(false);

/** Set by the api where letters stay on this machine, as with `make up`. */
const INBOX = document.getElementById("root")?.dataset["inbox"];

/** What somebody meets who is not signed in. */
export function Welcome({ notice }: { notice: string }) {
  const [way, setWay] = useState<Way>("in");
  const [moved, setMoved] = useState(false);
  const [sentTo, setSentTo] = useState<{ email: string; message: string } | null>(null);

  function go(next: Way) {
    setWay(next);
    setSentTo(null);
    setMoved(true);
  }

  function sent(letter: { email: string; message: string }) {
    setSentTo(letter);
    setMoved(true);
  }

  return (
    <div className="welcome">
      <main className="welcome-side">
        <p className="brand">
          <Mark /> Darkroom
        </p>
        <h1>
          Say it in words. <em>Watch it develop.</em>
        </h1>
        <section className="card">
          <Moved value={moved}>
            {sentTo === null ? (
              <Forms way={way} notice={notice} go={go} sent={sent} />
            ) : (
              <Sent {...sentTo} back={() => go("in")} />
            )}
          </Moved>
        </section>
        <p className="fine">
          Every picture here can be asked for by program too: <a href="/graphql">the API</a>.
        </p>
      </main>
      <Samples />
    </div>
  );
}

interface FormsProps {
  way: Way;
  notice: string;
  go: (way: Way) => void;
  sent: (letter: { email: string; message: string }) => void;
}

function Forms({ way, notice, go, sent }: FormsProps) {
  switch (way) {
    case "in":
      return <SignIn notice={notice} go={go} />;
    case "up":
      return <SignUp go={go} sent={sent} />;
    case "forgotten":
      return <Forgotten go={go} sent={sent} />;
  }
}

function SignIn({ notice, go }: Pick<FormsProps, "notice" | "go">) {
  const { session, client } = useServices();
  const attempt = useAttempt(async ({ email, password }: Credentials) => {
    const answer = await client.execute(SignInDocument, { input: { email, password } });
    if (answer.signin.__typename !== "Session") {
      return { problem: answer.signin.message };
    }
    session.adopt({ data: answer });
    return {};
  });
  return (
    <Way title="Sign in" problem={attempt.problem || notice}>
      <Form className="form" onFormSubmit={attempt.submit}>
        <Email />
        <TextField
          name="password"
          label="Password"
          type="password"
          autoComplete="current-password"
          required
        />
        <Submit busy={attempt.busy}>Sign in</Submit>
      </Form>
      <p className="ways">
        <button type="button" className="link" onClick={() => go("up")}>
          Create an account
        </button>
        <button type="button" className="link" onClick={() => go("forgotten")}>
          Forgotten password
        </button>
      </p>
    </Way>
  );
}

function SignUp({ go, sent }: Pick<FormsProps, "go" | "sent">) {
  const { client } = useServices();
  const attempt = useAttempt(async ({ email, password }: Credentials) => {
    const { signup } = await client.execute(SignUpDocument, { input: { email, password } });
    switch (signup.__typename) {
      case "SignupAccepted":
        sent({ email, message: "Follow the link in it to prove that the address is yours, then sign in." });
        return {};
      case "InvalidInput":
        return { errors: byField(signup.fields) };
      case "RateLimited":
        return { problem: signup.message };
    }
  });
  return (
    <Way title="Create an account" problem={attempt.problem}>
      <Form className="form" errors={attempt.errors} onFormSubmit={attempt.submit}>
        <Email />
        <TextField
          name="password"
          label="Password"
          type="password"
          autoComplete="new-password"
          hint="8 to 128 characters. A few words in a row are good."
          required
        />
        <Submit busy={attempt.busy}>Create account</Submit>
      </Form>
      <p className="ways">
        <button type="button" className="link" onClick={() => go("in")}>
          I have one already
        </button>
      </p>
    </Way>
  );
}

function Forgotten({ go, sent }: Pick<FormsProps, "go" | "sent">) {
  const { client } = useServices();
  const attempt = useAttempt(async ({ email }: { email: string }) => {
    const { requestPasswordReset: answer } = await client.execute(RequestPasswordResetDocument, { email });
    if (answer.__typename === "RateLimited") {
      return { problem: answer.message };
    }
    sent({ email, message: "If there is such an account, the link in it lets you choose a new password." });
    return {};
  });
  return (
    <Way title="Forgotten password" problem={attempt.problem}>
      <Form className="form" onFormSubmit={attempt.submit}>
        <Email />
        <Submit busy={attempt.busy}>Send me a letter</Submit>
      </Form>
      <p className="ways">
        <button type="button" className="link" onClick={() => go("in")}>
          Back to signing in
        </button>
      </p>
    </Way>
  );
}

function Sent({ email, message, back }: { email: string; message: string; back: () => void }) {
  return (
    <Way title="Look into your mail" problem="">
      <p>
        A letter is on its way to <strong>{email}</strong>. {message}
      </p>
      {INBOX !== undefined && (
        <p>
          This Darkroom runs on one machine for trying out: <a href={INBOX}>its letters are here</a>.
        </p>
      )}
      <Button className="button" onClick={back}>
        Back to signing in
      </Button>
    </Way>
  );
}

/** One way in. Its heading takes the focus when it replaces another, so that a screen reader goes along. */
function Way({ title, problem, children }: { title: string; problem: string; children: ReactNode }) {
  const heading = useRef<HTMLHeadingElement>(null);
  const moved = useContext(Moved);
  useEffect(() => {
    if (moved) {
      heading.current?.focus();
    }
  }, [moved]);
  return (
    <>
      <h2 ref={heading} tabIndex={-1}>
        {title}
      </h2>
      <p role="alert" className="problem">
        {problem}
      </p>
      {children}
    </>
  );
}

function Email() {
  return <TextField name="email" label="E-mail" type="email" autoComplete="username" required />;
}

function Submit({ busy, children }: { busy: boolean; children: ReactNode }) {
  return (
    <Button type="submit" className="button primary" disabled={busy} focusableWhenDisabled>
      {children}
    </Button>
  );
}

/** Pictures that the bundled model made, developing one after the other. */
function Samples() {
  return (
    <ul className="samples" aria-hidden="true">
      {Array.from({ length: 16 }, (_, index) => (
        <li key={index} />
      ))}
    </ul>
  );
}
