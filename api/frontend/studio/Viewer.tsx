import { Button } from "@base-ui/react/button";
import { Dialog } from "@base-ui/react/dialog";
import { type KeyboardEvent, type ReactNode, type RefObject, useEffect, useRef } from "react";

import type { Generation, Picture } from "./gallery";
import { AgainIcon, CloseIcon, DownloadIcon, NextIcon, PreviousIcon } from "./icons";
import { bytes, moment, samplerName } from "./words";

interface ViewerProps {
  place: { generation: Generation; picture: Picture } | undefined;
  previous: (() => void) | undefined;
  next: (() => void) | undefined;
  freshen: (generation: Generation) => void;
  close: () => void;
  /** Where the focus goes when a picture is asked for again. */
  prompt: RefObject<HTMLTextAreaElement | null>;
  again: (generation: Generation, picture: Picture | null) => void;
}

/** One picture, large, with what made it. */
export function Viewer({ place, previous, next, freshen, close, prompt, again }: ViewerProps) {
  const generation = place?.generation;
  const goesOn = useRef(false);
  useEffect(() => {
    if (generation !== undefined) {
      goesOn.current = false;
      freshen(generation);
    }
  }, [generation, freshen]);

  function goOn(picture: Picture | null) {
    if (generation !== undefined) {
      goesOn.current = true;
      again(generation, picture);
    }
  }

  function turn(event: KeyboardEvent) {
    if (event.key === "ArrowLeft") {
      previous?.();
    } else if (event.key === "ArrowRight") {
      next?.();
    }
  }

  return (
    <Dialog.Root open={place !== undefined} onOpenChange={(open) => !open && close()}>
      <Dialog.Portal>
                <Dialog.Popup className="viewer" onKeyDown={turn}
          finalFocus={() => (goesOn.current ? prompt.current : true)}
          data-testid="viewer"
        >
          {place !== undefined && (
            <>
              <figure className="stage">
                <img
                  src={place.picture.url ?? ""}
                  alt={place.generation.prompt}
                  width={place.picture.width}
                  height={place.picture.height}
                />
                <Turn label="Newer picture" turn={previous} icon={<PreviousIcon />} side="left" />
                <Turn label="Older picture" turn={next} icon={<NextIcon />} side="right" />
              </figure>
              <aside className="facts">
                <Dialog.Title className="facts-prompt">{place.generation.prompt}</Dialog.Title>
                <Facts {...place} />
                <div className="facts-actions">
                  <a
                    className="button primary"
                    href={place.picture.url ?? ""}
                    download={fileName(place.picture)}
                    data-testid="download"
                  >
                    <DownloadIcon /> Download
                  </a>
                  <Button
                    className="button"
                    onClick={() => goOn(place.picture)}
                    data-testid="again"
                  >
                    <AgainIcon /> Again with this seed
                  </Button>
                  <Button className="button" onClick={() => goOn(null)}>
                    Use these settings
                  </Button>
                </div>
              </aside>
            </>
          )}
          <Dialog.Close className="button quiet round viewer-close" aria-label="Close">
            <CloseIcon />
          </Dialog.Close>
        </Dialog.Popup>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

function Turn({
  label,
  turn,
  icon,
  side,
}: {
  label: string;
  turn: (() => void) | undefined;
  icon: ReactNode;
  side: "left" | "right";
}) {
  return (
    <Button
      className="button quiet round turn"
      data-side={side}
      aria-label={label}
      disabled={turn === undefined}
      focusableWhenDisabled
      onClick={() => turn?.()}
    >
      {icon}
    </Button>
  );
}

function Facts({ generation, picture }: { generation: Generation; picture: Picture }) {
  const facts: [string, string][] = [
    ["Seed", String(picture.seed)],
    ["Size", `${picture.width} × ${picture.height}`],
    ["Steps", String(generation.steps)],
    ["Guidance", String(generation.guidanceScale)],
    ["Sampler", samplerName(generation.scheduler)],
    ["Model", generation.model],
    ["File", `${generation.format}, ${bytes(picture.byteSize)}`],
    ["Asked for", moment(generation.createdAt)],
  ];
  if (generation.negativePrompt !== "") {
    facts.unshift(["Away from", generation.negativePrompt]);
  }
  if (generation.expiresAt !== null) {
    facts.push(["Kept until", moment(generation.expiresAt)]);
  }
  return (
    <dl className="facts-list">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

function fileName({ seed, contentType }: Picture): string {
  return `darkroom-${seed}.${contentType.replace("image/", "").replace("jpeg", "jpg")}`;
}
