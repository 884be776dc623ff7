import { Button } from "@base-ui/react/button";
import { Form } from "@base-ui/react/form";
import { type ReactNode, createContext, useContext, useEffect, useRef, useState } from "react";

import { type Attempt, byField, useAttempt } from "./attempt";
import { NewPassword, TextField } from "./fields";
import { RequestPasswordResetDocument, SignInDocument, SignUpDocument } from "../shared/generated/operations";
import { Mark } from "./icons";
import { useServices } from "./services";

type Way = "in" | "up" | "forgotten";
type Credentials = Record<"email" | "password", string>;

/** Whether this is not what the page began with: then its heading takes the focus. */
const Moved = createContext(false);

/** Set by the api where letters stay on this machine, as with `make up`. */
const INBOX = document.getElementById("root")?.dataset["inbox"];

interface WelcomeProps {
  notice: string;
  /** Whether the page showed the studio before. */
  back: boolean;
}

/** What somebody meets who is not signed in. */
export function Welcome({ notice, back }: WelcomeProps) {
  const [way, setWay] = useState<Way>("in");
  const [moved, setMoved] = useState(back || notice !== "");
  /** What was said of the letter that was asked for last. */
  const [letter, setLetter] = useState<ReactNode>(null);
  const Shown = { in: SignIn, up: SignUp, forgotten: Forgotten }[way];

  function go(next: Way) {
    setWay(next);
    setLetter(null);
    setMoved(true);
  }

  function sent(said: ReactNode) {
    setLetter(said);
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
            {letter === null ? (
              <Shown notice={notice} go={go} sent={sent} />
            ) : (
              <Sent back={() => go("in")}>{letter}</Sent>
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

interface WayProps {
  notice: string;
  go: (way: Way) => void;
  sent: (said: ReactNode) => void;
}

function SignIn({ notice, go }: WayProps) {
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
    <WayForm
      title="Sign in"
      action="Sign in"
      notice={notice}
      attempt={attempt}
      others={{ up: "Create an account", forgotten: "Forgotten password" }}
      go={go}
    >
      <TextField
        name="password"
        label="Password"
        type="password"
        autoComplete="current-password"
        required
      />
    </WayForm>
  );
}

function SignUp({ go, sent }: WayProps) {
  const { client } = useServices();
  const attempt = useAttempt(async ({ email, password }: Credentials) => {
    const { signup } = await client.execute(SignUpDocument, { input: { email, password } });
    switch (signup.__typename) {
      case "SignupAccepted":
        sent(
          <>
            A letter is on its way to <strong>{email}</strong>. Follow the link in it to prove that the address is
            yours, then sign in.
          </>,
        );
        return {};
      case "InvalidInput":
        return { errors: byField(signup.fields) };
      case "RateLimited":
        return { problem: signup.message };
    }
  });
  return (
    <WayForm
      title="Create an account"
      action="Create account"
      attempt={attempt}
      others={{ in: "I have one already" }}
      go={go}
    >
      <NewPassword name="password" label="Password" />
    </WayForm>
  );
}

function Forgotten({ go, sent }: WayProps) {
  const { client } = useServices();
  const attempt = useAttempt(async ({ email }: Pick<Credentials, "email">) => {
    const { requestPasswordReset: answer } = await client.execute(RequestPasswordResetDocument, { email });
    if (answer.__typename === "RateLimited") {
      return { problem: answer.message };
    }
    // Whether there is one is not told, so it must not sound as if there were.
    sent(
      <>
        If <strong>{email}</strong> has an account, a letter is on its way to it; the link in it lets you choose a
        new password.
      </>,
    );
    return {};
  });
  return (
    <WayForm
      title="Forgotten password"
      action="Send me a letter"
      attempt={attempt}
      others={{ in: "Back to signing in" }}
      go={go}
    />
  );
}

interface WayFormProps<Values> {
  title: string;
  /** On the button that sends it. */
  action: string;
  notice?: string;
  attempt: Attempt<Values>;
  /** What else somebody may have come for, in words. */
  others: Partial<Record<Way, string>>;
  go: (way: Way) => void;
  /** Its fields after the address. */
  children?: ReactNode;
}

function WayForm<Values extends Record<string, unknown>>({
  title,
  action,
  notice = "",
  attempt,
  others,
  go,
  children,
}: WayFormProps<Values>) {
  return (
    <>
      <Heading>{title}</Heading>
      {notice !== "" && attempt.problem === "" && <p role="alert">{notice}</p>}
      <p role="alert" className="problem">
        {attempt.problem}
      </p>
      <Form<Values> className="form" errors={attempt.errors} onFormSubmit={attempt.submit}>
        <TextField name="email" label="E-mail" type="email" autoComplete="username" required />
        {children}
        <Button type="submit" className="button primary" disabled={attempt.busy} focusableWhenDisabled>
          {action}
        </Button>
      </Form>
      <p className="ways">
        {Object.entries(others).map(([way, words]) => (
          <button key={way} type="button" className="link" onClick={() => go(way as Way)}>
            {words}
          </button>
        ))}
      </p>
    </>
  );
}

function Sent({ children, back }: { children: ReactNode; back: () => void }) {
  return (
    <>
      <Heading>Look into your mail</Heading>
      <p>{children}</p>
      {INBOX !== undefined && (
        <p>
          This Darkroom runs on one machine for trying out: <a href={INBOX}>its letters are here</a>.
        </p>
      )}
      <Button className="button" onClick={back}>
        Back to signing in
      </Button>
    </>
  );
}

/** Takes the focus when it replaces another, so that a screen reader goes along. */
function Heading({ children }: { children: string }) {
  const heading = useRef<HTMLHeadingElement>(null);
  const moved = useContext(Moved);
  useEffect(() => {
    if (moved) {
      heading.current?.focus();
    }
  }, [moved]);
  return (
    <h2 ref={heading} tabIndex={-1}>
      {children}
    </h2>
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
