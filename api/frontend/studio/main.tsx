import "@fontsource-variable/instrument-sans/wght.css";
import "@fontsource/instrument-serif/latin-400.css";
import "@fontsource/instrument-serif/latin-400-italic.css";
import "./styles/base.css";
import "./styles/controls.css";
import "./styles/layout.css";
import "./styles/gallery.css";

import { CSPProvider } from "@base-ui/react/csp-provider";
import { createRoot } from "react-dom/client";

import { SessionKeeper } from "../shared/session";
import { Store } from "../shared/store";
import { App } from "./App";
import { Client } from "./client";
import { Connection } from "./connection";
import { ServicesContext } from "./services";
import { Themes } from "./theme";

const session = new SessionKeeper({ storage: window.localStorage });
const connection = new Connection();
const services = {
  session,
  connection,
  client: new Client({ session, connection }),
  themes: new Themes({ storage: window.localStorage }),
  announcement: new Store(""),
};

const root = document.getElementById("root");
if (root === null) {
  throw new Error("index.html has no element with the id root.");
}
createRoot(root).render(
  <CSPProvider disableStyleElements>
    <ServicesContext value={services}>
      <App />
    </ServicesContext>
  </CSPProvider>,
);
