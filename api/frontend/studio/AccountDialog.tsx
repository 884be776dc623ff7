import { Button } from "@base-ui/react/button";
import { Dialog } from "@base-ui/react/dialog";
import { Radio } from "@base-ui/react/radio";
import { RadioGroup } from "@base-ui/react/radio-group";
import { Switch } from "@base-ui/react/switch";
import { useCallback, useEffect, useState } from "react";

import { inWords } from "../shared/endpoint";
import { useStore } from "../shared/store";
import { ChangePassword } from "./ChangePassword";
import { DeleteAccount } from "./DeleteAccount";
import { SetRemindersDocument, StandingDocument, type StandingQuery } from "../shared/generated/operations";
import { CloseIcon } from "./icons";
import type { Account } from "./overview";
import { Premium } from "./Premium";
import { useServices } from "./services";
import { THEMES } from "./theme";
import { Usage } from "./Usage";
import { day } from "./words";

interface AccountDialogProps {
  open: boolean;
  close: () => void;
  account: Account;
  changed: (account: Account) => void;
}

/** Everything about the account: its tier and how to change it, what is left of its limits, how the page looks. */
export function AccountDialog({ open, close, account, changed }: AccountDialogProps) {
  return (
    <Dialog.Root open={open} onOpenChange={(next) => !next && close()}>
      <Dialog.Portal>
        <Dialog.Backdrop className="backdrop" />
        <Dialog.Popup className="sheet" data-testid="account-dialog">
          <div className="sheet-head">
            <Dialog.Title>Account</Dialog.Title>
            <Dialog.Close className="button quiet round" aria-label="Close">
              <CloseIcon />
            </Dialog.Close>
          </div>
          <Sections account={account} changed={changed} />
        </Dialog.Popup>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

function Sections({ account, changed }: Pick<AccountDialogProps, "account" | "changed">) {
  const { client, session } = useServices();
  const [standing, setStanding] = useState<StandingQuery | null>(null);
  const [problem, setProblem] = useState("");

  const look = useCallback(async () => {
    try {
      const answer = await client.execute(StandingDocument, {});
      setStanding(answer);
      if (answer.me !== null) {
        changed(answer.me);
      }
    } catch (error) {
      setProblem(inWords(error));
    }
  }, [client, changed]);
  useEffect(() => {
    void look();
  }, []);

  return (
    <>
      <section className="sheet-section">
        <p className="who">
          <span className="who-email">{account.email}</span>
          <span className="tier" data-tier={account.tier} data-testid="tier">
            {account.tier.toLowerCase()}
          </span>
        </p>
        {account.bounce !== null && (
          <p className="problem">
            Letters do not reach you since {day(account.bounce.at)}: {account.bounce.reason}
          </p>
        )}
        <p role="alert" className="problem">
          {problem}
        </p>
      </section>
      <Premium account={account} offers={standing?.offers} changed={changed} />
      <Usage account={account} limits={standing?.rateLimit} />
      <Appearance />
      <section className="sheet-section">
        <h3>Letters and password</h3>
        <Reminders account={account} changed={changed} />
        <ChangePassword />
      </section>
      <section className="sheet-section sheet-end">
        <Button className="button" onClick={() => void session.signOut()} data-testid="sign-out">
          Sign out
        </Button>
        <DeleteAccount account={account} />
        <p className="fine">
          <a href="/graphql">Explore the API</a>
          {standing !== null && ` · Darkroom ${standing.service.version}`}
        </p>
      </section>
    </>
  );
}

function Appearance() {
  const { themes } = useServices();
  const chosen = useStore(themes);
  return (
    <section className="sheet-section">
      <h3 id="appearance">Appearance</h3>
      <RadioGroup
        className="radios"
        aria-labelledby="appearance"
        value={chosen}
        onValueChange={(theme) => themes.choose(theme)}
      >
        {THEMES.map((theme) => (
          <label key={theme} className="radio">
            <Radio.Root value={theme} className="radio-mark">
              <Radio.Indicator className="radio-dot" />
            </Radio.Root>
            {theme === "system" ? "System" : theme === "dark" ? "Dark" : "Light"}
          </label>
        ))}
      </RadioGroup>
    </section>
  );
}

function Reminders({ account, changed }: Pick<AccountDialogProps, "account" | "changed">) {
  const { client } = useServices();
  const [problem, setProblem] = useState("");

  async function choose(enabled: boolean) {
    setProblem("");
    try {
      const { setReminders } = await client.execute(SetRemindersDocument, { enabled });
      changed(setReminders.account);
    } catch (error) {
      setProblem(inWords(error));
    }
  }

  return (
    <>
      <label className="switch-row">
        <Switch.Root
          className="switch"
          checked={account.reminders}
          onCheckedChange={(enabled) => void choose(enabled)}
        >
          <Switch.Thumb className="switch-thumb" />
        </Switch.Root>
        Remind me before premium ends
      </label>
      <p role="alert" className="problem">
        {problem}
      </p>
    </>
  );
}
