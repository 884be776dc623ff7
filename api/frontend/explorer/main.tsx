import "graphiql/setup-workers/vite";
import "graphiql/style.css";
import "./explorer.css";

import { GraphiQL } from "graphiql";
import { createRoot } from "react-dom/client";

import { createFetcher } from "./fetcher";
import { LastGeneration } from "./generation";
import { PictureStrip } from "./PictureStrip";
import { Pictures } from "./pictures";
import { SignInBar } from "./SignInBar";
import { SystemTheme } from "./SystemTheme";
import { SessionKeeper } from "../shared/session";
import { EditorStorage } from "./storage";
import { READY_TABS } from "./tabs";

const session = new SessionKeeper({ storage: window.sessionStorage });
const lastGeneration = new LastGeneration({ storage: window.sessionStorage });
const pictures = new Pictures();
const editorStorage = new EditorStorage({ storage: window.localStorage });
const fetcher = createFetcher({ session, pictures, lastGeneration });

forgetWithAccount();

const root = document.getElementById("root");
if (root === null) {
  throw new Error("index.html has no element with the id root.");
}
createRoot(root).render(
  <>
    <SignInBar keeper={session} />
    <main>
      <GraphiQL
        fetcher={fetcher}
        storage={editorStorage}
        shouldPersistHeaders={false}
        defaultTabs={[...READY_TABS]}
        defaultEditorToolsVisibility="variables"
        // GraphiQL opens the first of its default tabs without that tab's variables.
        {...(editorStorage.hasTabs ? {} : { initialVariables: READY_TABS[0].variables })}
      >
        <SystemTheme />
        <GraphiQL.Footer>
          <PictureStrip pictures={pictures} />
        </GraphiQL.Footer>
      </GraphiQL>
    </main>
  </>,
);

/** What was made for one account is not shown or named to the next one on this page. */
function forgetWithAccount(): void {
  const account = () => session.read().session?.account?.email ?? null;
  let before = account();
  session.subscribe(() => {
    if (account() !== before) {
      before = account();
      pictures.clear();
      lastGeneration.forget();
    }
  });
}
