import { Button } from "@base-ui/react/button";

import { Countdown } from "./Countdown";
import { Mark, PersonIcon } from "./icons";
import type { Account } from "./overview";

interface HeaderProps {
  account: Account | null;
  nextWindowAt: string | null;
  openAccount: () => void;
}

/** The top of the studio: whose it is, and for the normal tier when its next window opens. */
export function Header({ account, nextWindowAt, openAccount }: HeaderProps) {
  return (
    <header className="header">
      <p className="brand">
        <Mark /> Darkroom
      </p>
      {account?.tier === "NORMAL" && nextWindowAt !== null && (
        <p className="window" data-testid="next-window">
          <span className="window-words">Next window in</span> <Countdown to={nextWindowAt} />
        </p>
      )}
      {account !== null && (
        <Button className="button quiet account-button" onClick={openAccount} data-testid="account">
          <PersonIcon />
          <span className="account-name">{account.email}</span>
          <span className="tier" data-tier={account.tier}>
            {account.tier.toLowerCase()}
          </span>
        </Button>
      )}
    </header>
  );
}
