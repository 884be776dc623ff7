import { Button } from "@base-ui/react/button";
import { Collapsible } from "@base-ui/react/collapsible";
import { Form } from "@base-ui/react/form";
import type { ReactNode } from "react";

import type { Attempt } from "./attempt";

interface FoldedFormProps<Values> {
  title: string;
  /** On the button that sends it. */
  action: string;
  /** Whether it takes away what cannot be brought back. */
  destructive?: boolean;
  attempt: Attempt<Values>;
  open: boolean;
  setOpen: (open: boolean) => void;
  children: ReactNode;
}

/** A form that seldom is needed: its title opens it. */
export function FoldedForm<Values extends Record<string, unknown>>({
  title,
  action,
  destructive = false,
  attempt,
  open,
  setOpen,
  children,
}: FoldedFormProps<Values>) {
  function fold(next: boolean) {
    // Its fields come back empty, and so does what was said of them.
    attempt.forget();
    setOpen(next);
  }

  return (
    <Collapsible.Root open={open} onOpenChange={fold}>
      <Collapsible.Trigger className="link">{title}</Collapsible.Trigger>
      <Collapsible.Panel ref={showAll} className="folded">
        <Form<Values> className="form" errors={attempt.errors} onFormSubmit={attempt.submit}>
          {children}
          <p role="alert" className="problem">
            {attempt.problem}
          </p>
          <Button
            type="submit"
            className={destructive ? "button danger" : "button"}
            disabled={attempt.busy}
            focusableWhenDisabled
          >
            {action}
          </Button>
        </Form>
      </Collapsible.Panel>
    </Collapsible.Root>
  );
}

/** What has just opened at the foot of a sheet would be below its edge. */
function showAll(panel: HTMLElement | null): void {
  panel?.scrollIntoView({ block: "nearest" });
}
