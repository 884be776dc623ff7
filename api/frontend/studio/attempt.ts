import { useState } from "react";

import { inWords } from "../shared/endpoint";
import { sentence } from "./words";

/** What became of a form: nothing to say, words for the whole of it, or words for its fields. */
export interface Outcome {
  problem?: string;
  errors?: Record<string, string>;
}

/** One form's way to the server: whether it is under way, and what became of it. */
export interface Attempt<Values> {
  busy: boolean;
  /** Words for the whole of the form, or none. */
  problem: string;
  errors: Record<string, string>;
  submit: (values: Values) => void;
  /** Says nothing any more of what became of it. */
  forget: () => void;
}

export function useAttempt<Values>(attempt: (values: Values) => Promise<Outcome>): Attempt<Values> {
  const [busy, setBusy] = useState(false);
  const [{ problem = "", errors = NO_ERRORS }, setOutcome] = useState<Outcome>({});

  async function submit(values: Values) {
    setBusy(true);
    setOutcome({});
    try {
      setOutcome(await attempt(values));
    } catch (error) {
      setOutcome({ problem: inWords(error) });
    } finally {
      setBusy(false);
    }
  }

  return {
    busy,
    problem,
    errors,
    submit: (values: Values) => void submit(values),
    forget: () => setOutcome({}),
  };
}

const NO_ERRORS: Record<string, string> = {};

/** The api's reasons, each for the field that it is about. */
export function byField(fields: readonly { field: string; message: string }[]): Record<string, string> {
  return Object.fromEntries(fields.map(({ field, message }) => [field, sentence(message)]));
}
