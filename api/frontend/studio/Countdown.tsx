import { useEffect, useState } from "react";

import { clock } from "./words";

/** How long until a moment, second by second. */
export function Countdown({ to }: { to: string }) {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = window.setInterval(() => setNow(Date.now()), 1_000);
    return () => window.clearInterval(timer);
  }, []);
  return (
    <time dateTime={to} className="clock" data-testid="countdown">
      {clock(Date.parse(to) - now)}
    </time>
  );
}
