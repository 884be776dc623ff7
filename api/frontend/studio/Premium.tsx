import { Button } from "@base-ui/react/button";
import { Form } from "@base-ui/react/form";

import { useAttempt } from "./attempt";
import { TextField } from "./fields";
import { BuyPremiumDocument, RedeemVoucherDocument, type StandingQuery } from "../shared/generated/operations";
import type { Account } from "./overview";
import { useServices } from "./services";
import { counted, day, price } from "./words";

type Offer = StandingQuery["offers"][number];

interface PremiumProps {
  account: Account;
  /** Undefined until they are known. */
  offers: readonly Offer[] | undefined;
  changed: (account: Account) => void;
}

/** What premium is, until when it lasts, and how to get it. */
export function Premium({ account, offers, changed }: PremiumProps) {
  return (
    <section className="sheet-section">
      <h3>Premium</h3>
      <p data-testid="premium-until">
        {account.tier === "PREMIUM"
          ? `Your pictures are made at once${account.premiumUntil === null ? "" : `, until ${day(account.premiumUntil)}`}.`
          : "Pictures at once, here to download, instead of by letter after the next window."}
      </p>
      {offers !== undefined && offers.length > 0 && <Offers offers={offers} />}
      <Voucher changed={changed} />
    </section>
  );
}

function Offers({ offers }: { offers: readonly Offer[] }) {
  const { client } = useServices();
  const attempt = useAttempt(async (offer: string) => {
    const { buyPremium } = await client.execute(BuyPremiumDocument, { input: { offer } });
    if (buyPremium.__typename !== "Checkout") {
      return { problem: buyPremium.message };
    }
    window.location.assign(buyPremium.url);
    return {};
  });
  return (
    <>
      <ul className="offers">
        {offers.map(({ id, days, price: amount, currency }) => (
          <li key={id}>
            <Button className="button" disabled={attempt.busy} focusableWhenDisabled onClick={() => attempt.submit(id)}>
              {counted(days, "day")} · {price(amount, currency)}
            </Button>
          </li>
        ))}
      </ul>
      <p role="alert" className="problem">
        {attempt.problem}
      </p>
    </>
  );
}

function Voucher({ changed }: Pick<PremiumProps, "changed">) {
  const { client, announcement } = useServices();
  const attempt = useAttempt(async ({ code }: { code: string }) => {
    const { redeemVoucher } = await client.execute(RedeemVoucherDocument, { code: code.trim() });
    if (redeemVoucher.__typename !== "Account") {
      return { errors: { code: redeemVoucher.message } };
    }
    changed(redeemVoucher);
    announcement.write("The voucher is redeemed.");
    return {};
  });
  return (
    <Form className="form-row" errors={attempt.errors} onFormSubmit={attempt.submit}>
      <TextField name="code" label="Voucher" autoComplete="off" spellCheck={false} required />
      <Button type="submit" className="button" disabled={attempt.busy} focusableWhenDisabled>
        Redeem
      </Button>
    </Form>
  );
}
