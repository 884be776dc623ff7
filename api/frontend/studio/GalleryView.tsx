import { type RefObject, useEffect, useRef, useState } from "react";

import { useStore } from "../shared/store";
import type { Gallery, Generation, Picture } from "./gallery";
import { isOpen } from "./gallery";
import { ClosedTile, LetterTile, OpenTile, PictureTile } from "./tiles";
import { Viewer } from "./Viewer";

interface GalleryViewProps {
  gallery: Gallery;
  email: string;
  nextWindowAt: string | null;
  /** Where somebody goes on who asks for a picture again. */
  prompt: RefObject<HTMLTextAreaElement | null>;
  again: (generation: Generation, picture: Picture | null) => void;
}

/** A picture and the place of its generation in the list. */
interface Place {
  generation: Generation;
  picture: Picture;
}

/** All pictures, newest first; more come when the end is scrolled to. */
export function GalleryView({ gallery, email, nextWindowAt, prompt, again }: GalleryViewProps) {
  const { generations, progress, cursor, loading, complete, problem } = useStore(gallery);
  const [shown, setShown] = useState<{ id: string; seed: number } | null>(null);
  const places = generations.flatMap(placesOf);
  const at = places.findIndex(({ generation, picture }) => generation.id === shown?.id && picture.seed === shown.seed);

  function show(place: Place | undefined) {
    setShown(place === undefined ? null : { id: place.generation.id, seed: place.picture.seed });
  }

  function tiles(generation: Generation) {
    const { id } = generation;
    if (isOpen(generation)) {
      return (
        <OpenTile
          key={id}
          generation={generation}
          progress={progress.get(id)}
          nextWindowAt={nextWindowAt}
          cancel={() => gallery.cancel(id)}
        />
      );
    }
    if (generation.state !== "SUCCEEDED") {
      return <ClosedTile key={id} generation={generation} again={() => again(generation, null)} />;
    }
    if (generation.delivery === "EMAIL") {
      return <LetterTile key={id} generation={generation} email={email} again={again} />;
    }
    return placesOf(generation).map((place) => (
      <PictureTile
        key={`${id} ${place.picture.seed}`}
        {...place}
        isNew={progress.has(id)}
        open={() => show(place)}
        broken={() => gallery.freshen(generation)}
      />
    ));
  }

  return (
    <section aria-label="Pictures" className="gallery-section">
      {complete && generations.length === 0 && <Empty />}
      <ul className="gallery" data-testid="gallery">
        {generations.map(tiles)}
      </ul>
      <p role="alert" className="problem gallery-end">
        {problem}
      </p>
      {!complete && <More key={cursor} loading={loading} more={() => void gallery.more()} />}
      <Viewer
        place={places[at]}
        previous={at > 0 ? () => show(places[at - 1]) : undefined}
        next={at >= 0 && at < places.length - 1 ? () => show(places[at + 1]) : undefined}
        freshen={gallery.freshen}
        close={() => show(undefined)}
        prompt={prompt}
        again={(generation, picture) => {
          show(undefined);
          again(generation, picture);
        }}
      />
    </section>
  );
}

function placesOf(generation: Generation): Place[] {
  return generation.images.filter(({ url }) => url !== null).map((picture) => ({ generation, picture }));
}

function Empty() {
  return (
    <p className="empty">
      <span className="empty-words">Nothing here yet.</span> Say above what you would like to see.
    </p>
  );
}

/** Asks for more when it comes into view, and when it is pressed. */
function More({ loading, more }: { loading: boolean; more: () => void }) {
  const end = useRef<HTMLDivElement>(null);
  const latest = useRef(more);
  useEffect(() => {
    latest.current = more;
  });
  useEffect(() => {
    const seen = new IntersectionObserver(
      ([entry]) => {
        if (entry?.isIntersecting) {
          latest.current();
        }
      },
      { rootMargin: "600px" },
    );
    if (end.current !== null) {
      seen.observe(end.current);
    }
    return () => seen.disconnect();
  }, []);
  return (
    <div ref={end} className="gallery-end">
      <button type="button" className="link" onClick={more} aria-disabled={loading}>
        {loading ? "Loading…" : "Show older pictures"}
      </button>
    </div>
  );
}
