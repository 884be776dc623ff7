import { Button } from "@base-ui/react/button";
import { Progress } from "@base-ui/react/progress";
import { type ReactNode, useState } from "react";

import { Countdown } from "./Countdown";
import type { Generation, Picture, Progress as Told } from "./gallery";
import { AgainIcon, LetterIcon } from "./icons";
import { counted, standing } from "./words";

/** A finished picture; pressing it shows it large. */
export function PictureTile({
  generation,
  picture,
  isNew,
  open,
  broken,
}: {
  generation: Generation;
  picture: Picture;
  /** Whether it was made while somebody watched: it develops then. */
  isNew: boolean;
  open: () => void;
  broken: () => void;
}) {
  return (
    <Tile width={picture.width} height={picture.height}>
      <button type="button" className="picture" onClick={open} data-testid="picture">
        <img
          src={picture.url ?? ""}
          alt={generation.prompt}
          width={picture.width}
          height={picture.height}
          loading="lazy"
          decoding="async"
          data-new={isNew}
          onError={broken}
        />
        <span className="picture-words" aria-hidden="true">
          {generation.prompt}
        </span>
      </button>
    </Tile>
  );
}

/** A generation that waits or is being made: its preview, how far it is, and a way to call it off. */
export function OpenTile({
  generation,
  progress,
  nextWindowAt,
  cancel,
}: {
  generation: Generation;
  progress: Told | undefined;
  nextWindowAt: string | null;
  cancel: () => Promise<string>;
}) {
  const [refused, setRefused] = useState("");
  const { width, height, prompt, count } = generation;
  const waitsForWindow = generation.state === "QUEUED" && generation.tier === "NORMAL";
  const soon = nextWindowAt !== null && isBefore(progress?.etaSeconds, nextWindowAt);
  return (
    <Tile width={width} height={height} wide>
      <article className="open" data-state={generation.state} data-testid="open">
        {progress?.preview != null && (
          <img className="preview" src={progress.preview} alt="" data-testid="preview" />
        )}
        <div className="open-words">
          <p className="open-prompt">{prompt}</p>
          <Progress.Root value={progress === undefined ? null : progress.fraction * 100} className="progress">
            <Progress.Label className="open-state">
              {standing(generation, progress)}
              {count > 1 && ` · ${counted(count, "picture")}`}
            </Progress.Label>
            <Progress.Track className="progress-track">
              <Progress.Indicator className="progress-indicator" />
            </Progress.Track>
          </Progress.Root>
          {waitsForWindow && nextWindowAt !== null && !soon && (
            <p className="open-state">
              Window opens in <Countdown to={nextWindowAt} />
            </p>
          )}
          <p role="alert" className="problem">
            {refused}
          </p>
          <Button
            className="button small"
            onClick={() => void cancel().then(setRefused)}
            aria-label={`Cancel: ${prompt}`}
          >
            Cancel
          </Button>
        </div>
      </article>
    </Tile>
  );
}

/** Whether so many seconds from now come before a moment: it is in the window that is open, then. */
function isBefore(seconds: number | null | undefined, moment: string): boolean {
  return seconds != null && Date.now() + seconds * 1_000 < Date.parse(moment);
}

/** Pictures that went out by e-mail: they are in a letter, and only there. */
export function LetterTile({
  generation,
  email,
  again,
}: {
  generation: Generation;
  email: string;
  again: (generation: Generation, picture: Picture | null) => void;
}) {
  const { images, prompt, width, height } = generation;
  return (
    <Tile width={width} height={height} wide>
      <article className="note" data-testid="letter">
        <p className="note-head">
          <LetterIcon /> {counted(images.length, "picture")} by letter
        </p>
        <p className="note-prompt">{prompt}</p>
        <p className="note-words">In your letter to {email}.</p>
        <Button className="button small" onClick={() => again(generation, images[0] ?? null)}>
          <AgainIcon /> Again with seed {images[0]?.seed}
        </Button>
      </article>
    </Tile>
  );
}

/** A generation that ended without pictures, and why. */
export function ClosedTile({ generation, again }: { generation: Generation; again: () => void }) {
  const { state, error, prompt, width, height } = generation;
  const heads = { REJECTED: "Held back by the safety check", CANCELED: "Canceled" } as const;
  return (
    <Tile width={width} height={height} wide>
      <article className="note" data-state={state} data-testid="closed">
        <p className="note-head">
          {state === "REJECTED" || state === "CANCELED" ? heads[state] : "Could not be made"}
        </p>
        <p className="note-prompt">{prompt}</p>
        {error !== null && <p className="note-words">{error.message}</p>}
        <Button className="button small" onClick={again}>
          <AgainIcon /> Ask again
        </Button>
      </article>
    </Tile>
  );
}

/** A place in a justified row: as wide as its share of the row's height. */
function Tile({
  width,
  height,
  wide = false,
  children,
}: {
  width: number;
  height: number;
  wide?: boolean;
  children: ReactNode;
}) {
  return (
    <li className="tile" data-wide={wide} style={{ "--ratio": width / height } as React.CSSProperties}>
      {children}
    </li>
  );
}
