import type { Generation, Picture } from "./gallery";
import type { Delivery, GenerateInput, ImageFormat, Scheduler } from "../shared/generated/operations";
import type { Model } from "./overview";

/** What the composer holds: a request that was not sent yet. */
export interface Draft {
  prompt: string;
  negativePrompt: string;
  model: string;
  width: number;
  height: number;
  steps: number;
  guidanceScale: number;
  /** Null: another one each time. */
  seed: number | null;
  count: number;
  scheduler: Scheduler;
  format: ImageFormat;
  /** Null: as the tier has it. */
  delivery: Delivery | null;
}

export const FORMATS: readonly ImageFormat[] = ["PNG", "JPEG", "WEBP"];
export const SCHEDULERS: readonly Scheduler[] = [
  "DDIM",
  "EULER",
  "EULER_ANCESTRAL",
  "DPMPP_2M",
  "DPMPP_2M_KARRAS",
  "LCM",
];

export function freshDraft(model: Model): Draft {
  return {
    prompt: "",
    negativePrompt: "",
    model: model.id,
    ...model.defaults,
    seed: null,
    count: 1,
    format: "PNG",
    delivery: null,
  };
}

/** The same wish of another model: its own defaults, in its own limits. */
export function withModel(draft: Draft, model: Model): Draft {
  return { ...draft, ...model.defaults, model: model.id, count: Math.min(draft.count, model.limits.maxCount) };
}

/** The request that made a generation; with a picture, the one that makes this very picture again. */
export function draftOf(generation: Generation, picture: Picture | null, delivery: Delivery | null): Draft {
  const { prompt, negativePrompt, model, width, height, steps, guidanceScale, scheduler, format } = generation;
  return {
    prompt,
    negativePrompt,
    model,
    width,
    height,
    steps,
    guidanceScale,
    scheduler,
    format,
    delivery,
    seed: picture?.seed ?? null,
    count: picture === null ? generation.count : 1,
  };
}

export function toInput(draft: Draft, idempotencyKey: string): GenerateInput {
  return { ...draft, idempotencyKey };
}

export interface Shape {
  name: string;
  width: number;
  height: number;
}

const RATIOS: readonly [string, number][] = [
  ["Square", 1],
  ["Portrait", 3 / 4],
  ["Landscape", 4 / 3],
  ["Wide", 16 / 9],
];

/** Shapes with about as many pixels as the model's own default, on its grid and inside its limits. */
export function shapesOf({ limits, defaults }: Model): Shape[] {
  const area = defaults.width * defaults.height;
  const onGrid = (length: number) =>
    Math.min(limits.maxSize, Math.max(limits.minSize, Math.round(length / limits.sizeStep) * limits.sizeStep));
  return RATIOS.map(([name, ratio]) => ({
    name,
    width: onGrid(Math.sqrt(area * ratio)),
    height: onGrid(Math.sqrt(area / ratio)),
  }));
}

/** A key that no other request has; `crypto.randomUUID` is to be had on secure origins only. */
export function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
