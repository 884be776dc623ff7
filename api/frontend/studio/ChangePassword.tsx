import { useState } from "react";

import { byField, useAttempt } from "./attempt";
import { NewPassword, TextField } from "./fields";
import { FoldedForm } from "./FoldedForm";
import { ChangePasswordDocument } from "../shared/generated/operations";
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
    <>
      <FoldedForm
        title="Change password"
        action="Set new password"
        attempt={attempt}
        open={open}
        setOpen={setOpen}
      >
        <TextField
          name="currentPassword"
          label="Present password"
          type="password"
          autoComplete="current-password"
          required
        />
        <NewPassword name="newPassword" label="New password" />
      </FoldedForm>
      {done && !open && <p className="hint">The password is changed; your other sessions have ended.</p>}
    </>
  );
}
