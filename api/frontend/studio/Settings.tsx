import { Field } from "@base-ui/react/field";

import { type Draft, FORMATS, SCHEDULERS, withModel } from "./draft";
import { Choice, NumberInput, SliderInput } from "./fields";
import type { Account, Model } from "./overview";
import { samplerName } from "./words";

const GREATEST_SEED = 2_147_483_647;

interface SettingsProps {
  account: Account;
  models: readonly Model[];
  model: Model;
  draft: Draft;
  set: (part: Partial<Draft>) => void;
  change: (draft: Draft) => void;
}

/** Everything that the chosen model lets be chosen, within its limits. */
export function Settings({ account, models, model, draft, set, change }: SettingsProps) {
  const { limits, defaults } = model;
  const sizes = { min: limits.minSize, max: limits.maxSize, step: limits.sizeStep };
  const sizeHint = `${limits.minSize} to ${limits.maxSize}, in steps of ${limits.sizeStep}`;
  return (
    <div className="settings-grid">
      <Choice
        name="model"
        label="Model"
        hint={model.license}
        value={model.id}
        options={models.map(({ id, name, description }) => ({ value: id, label: name, detail: description }))}
        onChange={(id) => change(withModel(draft, models.find((one) => one.id === id) ?? model))}
      />
      <NumberInput
        name="width"
        label="Width"
        hint={sizeHint}
        value={draft.width}
        onChange={(width) => set({ width: width ?? defaults.width })}
        {...sizes}
      />
      <NumberInput
        name="height"
        label="Height"
        hint={sizeHint}
        value={draft.height}
        onChange={(height) => set({ height: height ?? defaults.height })}
        {...sizes}
      />
      <NumberInput
        name="seed"
        label="Seed"
        hint="The same seed gives the same picture"
        value={draft.seed}
        onChange={(seed) => set({ seed })}
        placeholder="Random"
        min={0}
        max={GREATEST_SEED}
        step={1}
      />
      <SliderInput
        name="steps"
        label="Steps"
        hint={`Usually ${defaults.steps}`}
        value={draft.steps}
        onChange={(steps) => set({ steps })}
        min={1}
        max={limits.maxSteps}
        step={1}
      />
      <SliderInput
        name="guidanceScale"
        label="Guidance"
        hint={`How strictly to follow the prompt; usually ${defaults.guidanceScale}`}
        value={draft.guidanceScale}
        onChange={(guidanceScale) => set({ guidanceScale })}
        min={0}
        max={limits.maxGuidanceScale}
        step={0.5}
      />
      <Choice
        name="scheduler"
        label="Sampler"
        value={draft.scheduler}
        options={SCHEDULERS.map((value) => ({ value, label: samplerName(value) }))}
        onChange={(scheduler) => set({ scheduler })}
      />
      <Choice
        name="format"
        label="Format"
        value={draft.format}
        options={FORMATS.map((value) => ({ value, label: value }))}
        onChange={(format) => set({ format })}
      />
      {account.tier === "PREMIUM" && (
        <Choice
          name="delivery"
          label="Delivery"
          value={draft.delivery ?? "DOWNLOAD"}
          options={[
            { value: "DOWNLOAD", label: "Here, to download" },
            { value: "EMAIL", label: "By e-mail" },
          ]}
          onChange={(delivery) => set({ delivery })}
        />
      )}
      <Field.Root name="negativePrompt" className="field field-wide">
        <Field.Label className="label">Keep away from</Field.Label>
        <Field.Control
          className="input"
          value={draft.negativePrompt}
          onValueChange={(negativePrompt) => set({ negativePrompt })}
          placeholder="Blur, text, a second boat"
        />
        <Field.Error className="problem" />
      </Field.Root>
    </div>
  );
}
