import { useEffect, useState } from "react";

import { clock } from "./words";

/** How long until a moment, second by second; `over` is called once it has come, and again while it stays so. */
export function Countdown({ to, over }: { to: string; over: () => void }) {
  const [now, setNow] = useState(() => Date.now());
  const left = Date.parse(to) - now;
  useEffect(() => {
    const timer = window.setInterval(() => setNow(Date.now()), 1_000);
    return () => window.clearInterval(timer);
  }, []);
  const second = Math.floor(-left / 1_000);
  useEffect(() => {
    if (second >= 1) {
      over();
    }
  }, [second, over]);
  return (
    <time dateTime={to} className="clock" data-testid="countdown">
      {clock(left)}
    </time>
  );
}
