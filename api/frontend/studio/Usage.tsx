import { Meter } from "@base-ui/react/meter";

import type { StandingQuery } from "../shared/generated/operations";
import type { Account } from "./overview";
import { duration } from "./words";

type Limit = StandingQuery["rateLimit"][number];

/** The limits that say something to people; the others only stop those who guess passwords. */
const NAMES: Readonly<Record<string, string>> = {
  pictures: "Pictures",
  openGenerations: "Requests under way",
  subscriptions: "Requests watched live",
};

/** How much is left of what the account may do. */
export function Usage({ account, limits }: { account: Account; limits: readonly Limit[] | undefined }) {
  const { openGenerations, maxOpenGenerations } = account.usage;
  const shown = limits ?? [
    {
      name: "openGenerations",
      limit: maxOpenGenerations,
      remaining: maxOpenGenerations - openGenerations,
      windowSeconds: null,
      restoredAt: null,
    },
  ];
  return (
    <section className="sheet-section">
      <h3>Usage</h3>
      {shown.map((limit) => {
        const name = NAMES[limit.name];
        return name === undefined ? null : <Used key={limit.name} name={name} limit={limit} />;
      })}
    </section>
  );
}

function Used({ name, limit: { limit, remaining, windowSeconds } }: { name: string; limit: Limit }) {
  const used = limit - remaining;
  const period = windowSeconds === null ? "" : ` in ${duration(windowSeconds)}`;
  const words = `${used.toLocaleString()} of ${limit.toLocaleString()}${period}`;
  return (
    <Meter.Root value={used} max={limit} className="meter" getAriaValueText={() => words}>
      <Meter.Label>{name}</Meter.Label>
      <span aria-hidden="true">{words}</span>
      <Meter.Track className="meter-track">
        <Meter.Indicator className="meter-indicator" />
      </Meter.Track>
    </Meter.Root>
  );
}
