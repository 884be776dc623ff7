import type { Pictures } from "./pictures";
import { useStore } from "./store";

/** Small views of the pictures in the latest answer; each opens the picture itself in a new tab. */
export function PictureStrip({ pictures }: { pictures: Pictures }) {
  const shown = useStore(pictures);
  if (shown.length === 0) {
    return null;
  }
  return (
    <section className="darkroom-pictures" aria-label="Pictures" data-testid="pictures">
      <ul>
        {shown.map(({ url, description }) => (
          <li key={url}>
            <a href={url} target="_blank" rel="noreferrer" title={description}>
              <img src={url} alt={description} />
            </a>
          </li>
        ))}
      </ul>
      <button type="button" data-testid="hide-pictures" onClick={() => pictures.clear()}>
        Hide
      </button>
    </section>
  );
}
