import { Button } from "@base-ui/react/button";
import { Collapsible } from "@base-ui/react/collapsible";
import { Field } from "@base-ui/react/field";
import { Form } from "@base-ui/react/form";
import { Toggle } from "@base-ui/react/toggle";
import { ToggleGroup } from "@base-ui/react/toggle-group";
import { type KeyboardEvent, type RefObject, useEffect, useRef, useState } from "react";

import { byField, useAttempt } from "./attempt";
import { type Draft, newKey, shapesOf, toInput } from "./draft";
import type { Generation } from "./gallery";
import { GenerateDocument } from "../shared/generated/operations";
import { SlidersIcon } from "./icons";
import type { Account, Model } from "./overview";
import { useServices } from "./services";
import { Settings } from "./Settings";
import { counted, duration } from "./words";

interface ComposerProps {
  account: Account;
  models: readonly Model[];
  model: Model;
  draft: Draft;
  /** What was to draw this and is not offered any more, so that `model` does. */
  gone: string | undefined;
  change: (draft: Draft) => void;
  prompt: RefObject<HTMLTextAreaElement | null>;
  /** Counts up when a draft was filled in from a picture: the prompt takes the focus then. */
  asking: number;
  accepted: (generation: Generation) => void;
}

/** Where a picture is asked for. */
export function Composer({ account, models, model, draft, gone, change, prompt, asking, accepted }: ComposerProps) {
  const { client } = useServices();
  const [open, setOpen] = useState(false);
  const keyOf = useKeys();

  const attempt = useAttempt(async () => {
    const { generate } = await client.execute(GenerateDocument, { input: toInput(draft, keyOf(draft)) });
    keyOf.used();
    switch (generate.__typename) {
      case "Generation":
        accepted(generate);
        return {};
      case "InvalidInput": {
        // How many is chosen in no field that could say so.
        const { count, ...errors } = byField(generate.fields);
        setOpen((before) => before || Object.keys(errors).some((field) => field !== "prompt"));
        return count === undefined ? { errors } : { errors, problem: `How many: ${count}` };
      }
      case "QuotaExceeded": {
        const { message, retryAfter } = generate;
        return { problem: retryAfter === null ? message : `${message} Try again in ${duration(retryAfter)}.` };
      }
      default:
        return { problem: generate.message };
    }
  });

  useEffect(() => {
    if (asking > 0) {
      window.scrollTo({ top: 0 });
      prompt.current?.focus({ preventScroll: true });
    }
  }, [asking, prompt]);

  function set(part: Partial<Draft>) {
    change({ ...draft, ...part });
  }

  function sendByKey(event: KeyboardEvent<HTMLTextAreaElement>) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      event.currentTarget.form?.requestSubmit();
    }
  }

  return (
    <Form className="composer" errors={attempt.errors} onFormSubmit={attempt.submit} aria-label="Ask for pictures">
      <Field.Root name="prompt" className="prompt">
        <Field.Label className="unseen">Prompt</Field.Label>
        <Field.Control
          className="prompt-text"
          render={<textarea ref={prompt} rows={2} onKeyDown={sendByKey} />}
          placeholder="A red house by the sea at sunset"
          value={draft.prompt}
          onValueChange={(text) => set({ prompt: text })}
          aria-keyshortcuts="Control+Enter"
        />
        <Field.Error className="problem" />
      </Field.Root>
      <p role="status" className="problem" data-testid="other-model">
        {gone !== undefined && `${gone} is not offered any more: ${model.name} draws this, with settings of its own.`}
      </p>
      <p role="alert" className="problem" data-testid="refusal">
        {attempt.problem}
      </p>
      <Collapsible.Root open={open} onOpenChange={setOpen} className="composer-rest">
        <div className="composer-bar">
          <Shapes model={model} draft={draft} set={set} />
          <Counts model={model} draft={draft} set={set} />
          <Collapsible.Trigger className="button quiet" data-testid="settings">
            <SlidersIcon /> Settings
          </Collapsible.Trigger>
          <Button
            type="submit"
            className="button primary composer-send"
            disabled={attempt.busy}
            focusableWhenDisabled
            data-testid="generate"
          >
            Develop
          </Button>
        </div>
        <Collapsible.Panel className="settings">
          <Settings account={account} models={models} model={model} draft={draft} set={set} change={change} />
        </Collapsible.Panel>
      </Collapsible.Root>
    </Form>
  );
}

interface PartProps {
  model: Model;
  draft: Draft;
  set: (part: Partial<Draft>) => void;
}

function Shapes({ model, draft, set }: PartProps) {
  const shapes = shapesOf(model);
  const chosen = shapes.filter(({ width, height }) => width === draft.width && height === draft.height);
  return (
    <ToggleGroup
      className="choices"
      aria-label="Shape"
      value={chosen.map(({ name }) => name)}
      onValueChange={([name]) => {
        const shape = shapes.find((one) => one.name === name);
        if (shape !== undefined) {
          set({ width: shape.width, height: shape.height });
        }
      }}
    >
      {shapes.map(({ name, width, height }) => (
        <Toggle key={name} value={name} className="choice" aria-label={`${name}, ${width} by ${height} pixels`}>
          <span className="shape" data-shape={name} />
        </Toggle>
      ))}
    </ToggleGroup>
  );
}

function Counts({ model, draft, set }: PartProps) {
  const numbers = Array.from({ length: Math.min(model.limits.maxCount, 4) }, (_, index) => index + 1);
  return (
    <ToggleGroup
      className="choices"
      aria-label="How many"
      value={[String(draft.count)]}
      onValueChange={([count]) => {
        if (count !== undefined) {
          set({ count: Number(count) });
        }
      }}
    >
      {numbers.map((number) => (
        <Toggle
          key={number}
          value={String(number)}
          className="choice"
          aria-label={counted(number, "picture")}
        >
          {number}
        </Toggle>
      ))}
    </ToggleGroup>
  );
}

/**
 * The idempotency key of a draft: the same until the service has answered, so that asking again after a
 * connection broke makes no second generation. A changed draft is another request.
 */
function useKeys() {
  const kept = useRef<{ draft: string; key: string } | null>(null);

  function keyOf(draft: Draft): string {
    const text = JSON.stringify(draft);
    if (kept.current?.draft !== text) {
      kept.current = { draft: text, key: newKey() };
    }
    return kept.current.key;
  }

  keyOf.used = () => {
    kept.current = null;
  };
  return keyOf;
}
