import type { ReactNode } from "react";

/** Our own line drawings on a grid of 20, in the colour of the text around them; names stand beside them. */
function Icon({ children }: { children: ReactNode }) {
  return (
    <svg
      className="icon"
      viewBox="0 0 20 20"
      fill="none"
      stroke="currentColor"
      strokeWidth="1.5"
      strokeLinecap="round"
      strokeLinejoin="round"
      aria-hidden="true"
    >
      {children}
    </svg>
  );
}

export const ChevronIcon = () => (
  <Icon>
    <path d="m6 8 4 4 4-4" />
  </Icon>
);

export const CheckIcon = () => (
  <Icon>
    <path d="m4.5 10.5 3.5 3.5 7.5-8" />
  </Icon>
);

export const MinusIcon = () => (
  <Icon>
    <path d="M5.5 10h9" />
  </Icon>
);

export const PlusIcon = () => (
  <Icon>
    <path d="M5.5 10h9M10 5.5v9" />
  </Icon>
);

export const CloseIcon = () => (
  <Icon>
    <path d="m5.5 5.5 9 9M14.5 5.5l-9 9" />
  </Icon>
);

export const PreviousIcon = () => (
  <Icon>
    <path d="m12 5-5 5 5 5" />
  </Icon>
);

export const NextIcon = () => (
  <Icon>
    <path d="m8 5 5 5-5 5" />
  </Icon>
);

export const DownloadIcon = () => (
  <Icon>
    <path d="M10 3.5v9M6.5 9.5 10 13l3.5-3.5M4 16.5h12" />
  </Icon>
);

export const AgainIcon = () => (
  <Icon>
    <path d="M15.5 8A6 6 0 1 0 16 11.5M15.8 4v4.2h-4.2" />
  </Icon>
);

export const SlidersIcon = () => (
  <Icon>
    <path d="M3.5 6.5h7M14.5 6.5h2M3.5 13.5h2M9.5 13.5h7" />
    <circle cx="12.5" cy="6.5" r="2" />
    <circle cx="7.5" cy="13.5" r="2" />
  </Icon>
);

export const LetterIcon = () => (
  <Icon>
    <rect x="2.5" y="4.5" width="15" height="11" rx="1.5" />
    <path d="m3 5.5 7 5.5 7-5.5" />
  </Icon>
);

export const PersonIcon = () => (
  <Icon>
    <circle cx="10" cy="7" r="3" />
    <path d="M4 16.5c.6-3 3-4.5 6-4.5s5.4 1.5 6 4.5" />
  </Icon>
);

/** The sign of the house: a safelight. */
export const Mark = () => (
  <svg className="mark" viewBox="0 0 32 32" aria-hidden="true">
    <circle cx="16" cy="16" r="15" className="mark-glow" />
    <circle cx="16" cy="16" r="9" className="mark-lamp" />
    <circle cx="16" cy="16" r="3.5" className="mark-core" />
  </svg>
);
