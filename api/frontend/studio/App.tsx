import { useEffect, useState } from "react";

import { useStore } from "../shared/store";
import { ConnectionNotice } from "./ConnectionNotice";
import { useServices } from "./services";
import { Studio } from "./Studio";
import { Welcome } from "./Welcome";

/** The whole page: for whoever is signed in the studio, for all others the way in. */
export function App() {
  const { session, announcement } = useServices();
  const { session: current, notice } = useStore(session);
  const [wasIn, setWasIn] = useState(false);
  useEffect(() => {
    if (current !== null) {
      setWasIn(true);
    }
  }, [current]);
  return (
    <>
      <ConnectionNotice />
      {current === null ? (
        <Welcome notice={notice} back={wasIn} />
      ) : (
        <Studio key={current.account?.email ?? ""} />
      )}
      <p role="status" className="unseen" data-testid="announcement">
        {useStore(announcement)}
      </p>
    </>
  );
}
