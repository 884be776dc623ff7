import { useCallback, useEffect, useRef, useState } from "react";

import { useStore } from "../shared/store";
import { AccountDialog } from "./AccountDialog";
import { Composer } from "./Composer";
import { type Draft, draftOf, freshDraft, withModel } from "./draft";
import { Gallery, type Generation, type Picture } from "./gallery";
import { GalleryView } from "./GalleryView";
import { Header } from "./Header";
import { Overview } from "./overview";
import { useServices } from "./services";
import { counted } from "./words";

/** The studio of whoever is signed in. */
export function Studio() {
  const { client, announcement } = useServices();
  const [overview] = useState(() => new Overview({ client }));
  const [gallery] = useState(
    () => new Gallery({ client, ended: (generation) => announcement.write(outcome(generation)) }),
  );
  const [draft, setDraft] = useState<Draft | null>(null);
  const [asking, setAsking] = useState(0);
  const prompt = useRef<HTMLTextAreaElement>(null);
  const [accountOpen, setAccountOpen] = useState(false);
  const { account, models, nextWindowAt, problem } = useStore(overview);
  useComeBack(overview, gallery);

  const again = useCallback((generation: Generation, picture: Picture | null) => {
    const delivery = overview.read().account?.tier === "PREMIUM" ? generation.delivery : null;
    setDraft(draftOf(generation, picture, delivery));
    setAsking((times) => times + 1);
  }, [overview]);

  const chosen = models.find(({ id }) => id === draft?.model);
  const model = chosen ?? models[0];
  return (
    <>
      <Header
        account={account}
        nextWindowAt={nextWindowAt}
        openAccount={() => setAccountOpen(true)}
      />
      <main className="studio">
        <h1 className="unseen">Studio</h1>
        {problem !== "" && (
          <p role="alert" className="problem">
            {problem}{" "}
            <button type="button" className="link" onClick={() => void overview.load()}>
              Try again
            </button>
          </p>
        )}
        {account !== null && model !== undefined && (
          <Composer
            account={account}
            models={models}
            model={model}
            draft={draft === null ? freshDraft(model) : chosen === undefined ? withModel(draft, model) : draft}
            gone={chosen === undefined ? draft?.model : undefined}
            change={setDraft}
            prompt={prompt}
            asking={asking}
            accepted={(generation) => {
              gallery.add(generation);
              announcement.write(`Accepted: ${counted(generation.count, "picture")} of ${generation.prompt}`);
            }}
          />
        )}
        {account !== null && (
          <GalleryView
            gallery={gallery}
            email={account.email}
            nextWindowAt={nextWindowAt}
            prompt={prompt}
            again={again}
          />
        )}
      </main>
      {account !== null && (
        <AccountDialog
          open={accountOpen}
          close={() => setAccountOpen(false)}
          account={account}
          changed={(next) => overview.setAccount(next)}
        />
      )}
    </>
  );
}

/** Loads at first, and again what may have changed while the service could not be reached. */
function useComeBack(overview: Overview, gallery: Gallery): void {
  const { connection } = useServices();
  useEffect(() => {
    void overview.load();
    void gallery.more();
    let before = connection.read();
    const stop = connection.subscribe(() => {
      const reach = connection.read();
      if (reach === "online" && before !== "online") {
        void overview.load();
        void gallery.more();
      }
      before = reach;
    });
    return () => {
      stop();
      overview.stop();
      gallery.stop();
    };
  }, [overview, gallery, connection]);
}

function outcome({ state, prompt, error, count, delivery }: Generation): string {
  switch (state) {
    case "SUCCEEDED":
      return delivery === "EMAIL"
        ? `${counted(count, "picture")} of ${prompt} will be in your letter`
        : `Finished: ${counted(count, "picture")} of ${prompt}`;
    case "CANCELED":
      return `Canceled: ${prompt}`;
    default:
      return `Could not be made: ${prompt}. ${error?.message ?? ""}`;
  }
}
