import { useState } from "react";

import { useAttempt } from "./attempt";
import { TextField } from "./fields";
import { FoldedForm } from "./FoldedForm";
import { DeleteAccountDocument } from "../shared/generated/operations";
import type { Account } from "./overview";
import { useServices } from "./services";
import { counted, day } from "./words";

/** The end of the account, by its password, after what becomes of everything was said. */
export function DeleteAccount({ account }: { account: Account }) {
  const { client, session } = useServices();
  const [open, setOpen] = useState(false);
  const attempt = useAttempt(async (input: { password: string }) => {
    const { deleteAccount } = await client.execute(DeleteAccountDocument, { input });
    switch (deleteAccount.__typename) {
      case "AccountDeleted":
        session.end(deleteAccount.message);
        return {};
      case "InvalidCredentials":
        return { errors: { password: deleteAccount.message } };
      case "RateLimited":
        return { problem: deleteAccount.message };
    }
  });
  return (
    <FoldedForm
      title="Delete account"
      action="Delete everything"
      destructive
      attempt={attempt}
      open={open}
      setOpen={setOpen}
    >
      <p>This cannot be taken back.</p>
      <ul className="losses">
        {losses(account).map((loss) => (
          <li key={loss}>{loss}</li>
        ))}
      </ul>
      <TextField
        name="password"
        label="Your password"
        type="password"
        autoComplete="current-password"
        required
      />
    </FoldedForm>
  );
}

function losses({ email, tier, premiumUntil, usage: { openGenerations } }: Account): string[] {
  return [
    "Your prompts and pictures are deleted here within minutes. Download first what you want to keep; pictures that came by letter stay in your mail.",
    ...(openGenerations > 0
      ? [`${counted(openGenerations, "request")} under way ${openGenerations === 1 ? "is" : "are"} canceled.`]
      : []),
    ...(tier === "PREMIUM"
      ? [`Premium time that is left${premiumUntil === null ? "" : `, until ${day(premiumUntil)},`} is lost.`]
      : []),
    `A last letter to ${email} confirms it. The address is free again then.`,
  ];
}
