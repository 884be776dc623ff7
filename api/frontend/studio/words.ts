import type { GenerationPartsFragment as Generation } from "../shared/generated/operations";
import type { Progress } from "./gallery";

/** A sentence that can stand alone: the api's reasons begin like the rest of a sentence. */
export function sentence(text: string): string {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

/** "1 picture", "3 pictures". */
export function counted(number: number, noun: string): string {
  return `${number.toLocaleString()} ${noun}${number === 1 ? "" : "s"}`;
}

/** About how long, for people; a number stays beside its unit. */
export function duration(seconds: number): string {
  if (seconds < 90) {
    return `${Math.max(1, Math.round(seconds))}\u00a0s`;
  }
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) {
    return `${minutes}\u00a0min`;
  }
  const hours = Math.round(minutes / 60);
  return hours < 36 ? `${hours}\u00a0h` : `${Math.round(hours / 24)}\u00a0days`;
}

/** What a countdown shows: 0:07, 12:34, 1:02:03. */
export function clock(milliseconds: number): string {
  const seconds = Math.max(0, Math.ceil(milliseconds / 1000));
  const two = (number: number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

export function day(iso: string): string {
  return new Date(iso).toLocaleDateString(undefined, { dateStyle: "long" });
}

export function moment(iso: string): string {
  return new Date(iso).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

export function bytes(size: number): string {
  return size < 1_000_000 ? `${Math.max(1, Math.round(size / 1000))} kB` : `${(size / 1_000_000).toFixed(1)} MB`;
}

/** A price in the currency's minor unit, as people write it. */
export function price(amount: number, currency: string): string {
  const format = new Intl.NumberFormat(undefined, { style: "currency", currency });
  return format.format(amount / 10 ** (format.resolvedOptions().maximumFractionDigits ?? 2));
}

/** DPMPP_2M_KARRAS → DPM++ 2M Karras */
export function samplerName(scheduler: string): string {
  const names: Record<string, string> = {
    DDIM: "DDIM",
    EULER: "Euler",
    EULER_ANCESTRAL: "Euler ancestral",
    DPMPP_2M: "DPM++ 2M",
    DPMPP_2M_KARRAS: "DPM++ 2M Karras",
    LCM: "LCM",
  };
  return names[scheduler] ?? scheduler;
}

/** Where an open generation stands; a countdown to its window is shown beside it. */
export function standing(generation: Generation, progress: Progress | undefined): string {
  if (generation.state === "RUNNING") {
    const steps = progress === undefined ? "" : `, step ${progress.step} of ${progress.totalSteps}`;
    return `Developing${steps}${left(progress)}`;
  }
  if (progress?.queuePosition == null) {
    return "In the queue";
  }
  return `In the queue, place ${progress.queuePosition}${left(progress)}`;
}

function left(progress: Progress | undefined): string {
  return progress?.etaSeconds == null ? "" : ` · about\u00a0${duration(progress.etaSeconds)} left`;
}
