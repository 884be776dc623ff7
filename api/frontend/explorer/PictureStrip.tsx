import { useGraphiQL } from "@graphiql/react";
import { useLayoutEffect } from "react";

import type { Pictures } from "./pictures";
import { useStore } from "../shared/store";

/**
 * The pictures of a tab's latest answer that had any, beside its JSON: those that are being made as they
 * come, then the finished ones, each of which opens in a new window.
 */
export function PictureStrip({ pictures }: { pictures: Pictures }) {
  const tab = useGraphiQL(({ tabs, activeTabIndex }) => tabs[activeTabIndex]?.id ?? "");
  useLayoutEffect(() => pictures.openTab(tab), [pictures, tab]);
  const shown = useStore(pictures);
  if (shown.length === 0) {
    return null;
  }
  return (
    <section className="darkroom-pictures" aria-label="Pictures" data-testid="pictures">
      <ul>
        {shown.map(({ url, description, isPreview }) =>
          isPreview ? (
            <li key="preview">
              <img src={url} alt={description} data-testid="preview" />
            </li>
          ) : (
            <li key={url}>
              <a href={url} target="_blank" rel="noreferrer" title={description}>
                <img src={url} alt={description} />
              </a>
            </li>
          ),
        )}
      </ul>
      <button type="button" data-testid="hide-pictures" onClick={() => pictures.hide()}>
        Hide
      </button>
    </section>
  );
}
