import { createContext, useContext } from "react";

import type { SessionKeeper } from "../shared/session";
import { Store } from "../shared/store";
import type { Client } from "./client";
import type { Connection } from "./connection";
import type { Themes } from "./theme";

/** What every part of the studio may reach. */
export interface Services {
  session: SessionKeeper;
  connection: Connection;
  client: Client;
  themes: Themes;
  /** What a screen reader is told next. */
  announcement: Store<string>;
}

export const ServicesContext = createContext<Services | null>(null);

export function useServices(): Services {
  const services = useContext(ServicesContext);
  if (services === null) {
    throw new Error("This part of the studio is outside of ServicesContext.");
  }
  return services;
}
