import { Button } from "@base-ui/react/button";
import { Collapsible } from "@base-ui/react/collapsible";
import { Form } from "@base-ui/react/form";
import { useState } from "react";

import { byField, useAttempt } from "./attempt";
import { TextField } from "./fields";
import { ChangePasswordDocument } from "./generated/operations";
import { useServices } from "./services";

/** A new password, by the present one. */
export function ChangePassword() {
  const { client, announcement } = useServices();
  const [open, setOpen] = useState(false);
  const [done, setDone] = useState(false);
  const attempt = useAttempt(async (input: { currentPassword: string; newPassword: string }) => {
    const { changePassword } = await client.execute(ChangePasswordDocument, { input });
    switch (changePassword.__typename) {
      case "Account":
        setOpen(false);
        setDone(true);
        announcement.write("The password is changed.");
        return {};
      case "InvalidInput":
        return { errors: byField(changePassword.fields) };
      case "InvalidCredentials":
        return { errors: { currentPassword: changePassword.message } };
      case "RateLimited":
        return { problem: changePassword.message };
    }
  });
  return (
    <Collapsible.Root open={open} onOpenChange={setOpen}>
      <Collapsible.Trigger className="link">Change password</Collapsible.Trigger>
      {done && !open && <p className="hint">The password is changed; your other sessions have ended.</p>}
      <Collapsible.Panel className="collapsed-form">
        <Form className="form" errors={attempt.errors} onFormSubmit={attempt.submit}>
          <TextField
            name="currentPassword"
            label="Present password"
            type="password"
            autoComplete="current-password"
            required
          />
          <TextField
            name="newPassword"
            label="New password"
            type="password"
            autoComplete="new-password"
            hint="8 to 128 characters. A few words in a row are good."
            required
          />
          {attempt.problem !== "" && (
            <p role="alert" className="problem">
              {attempt.problem}
            </p>
          )}
          <Button type="submit" className="button" disabled={attempt.busy} focusableWhenDisabled>
            Change password
          </Button>
        </Form>
      </Collapsible.Panel>
    </Collapsible.Root>
  );
}
