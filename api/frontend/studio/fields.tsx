import { Field } from "@base-ui/react/field";
import { NumberField } from "@base-ui/react/number-field";
import { Select } from "@base-ui/react/select";
import { Slider } from "@base-ui/react/slider";
import type { ComponentProps, ReactNode } from "react";

import { CheckIcon, ChevronIcon, MinusIcon, PlusIcon } from "./icons";

interface Labelled {
  /** As the api calls it, so that its reasons find the way to it. */
  name: string;
  label: string;
  hint?: ReactNode;
}

export function TextField({
  name,
  label,
  hint,
  ...input
}: Labelled & Omit<ComponentProps<typeof Field.Control>, "name" | "className">) {
  return (
    <Field.Root name={name} className="field">
      <Field.Label className="label">{label}</Field.Label>
      <Field.Control className="input" {...input} />
      {hint !== undefined && <Field.Description className="hint">{hint}</Field.Description>}
      <Field.Error className="problem" />
    </Field.Root>
  );
}

/** A password that is yet to be chosen. */
export function NewPassword({ name, label }: Labelled) {
  return (
    <TextField
      name={name}
      label={label}
      type="password"
      autoComplete="new-password"
      hint="8 to 128 characters. A few words in a row are good."
      required
    />
  );
}

interface Numeric extends Labelled {
  min: number;
  max: number;
  step: number;
}

export function NumberInput<Value extends number | null>({
  name,
  label,
  hint,
  value,
  onChange,
  placeholder,
  ...limits
}: Numeric & { value: Value; onChange: (value: number | null) => void; placeholder?: string }) {
  return (
    <Field.Root name={name} className="field">
      <NumberField.Root
        value={value}
        onValueChange={onChange}
        format={{ useGrouping: false }}
        className="number"
        {...limits}
      >
        <Field.Label className="label">{label}</Field.Label>
        <NumberField.Group className="number-group">
          <NumberField.Decrement className="number-step" aria-label={`Less: ${label}`}>
            <MinusIcon />
          </NumberField.Decrement>
          <NumberField.Input className="input number-input" {...(placeholder ? { placeholder } : {})} />
          <NumberField.Increment className="number-step" aria-label={`More: ${label}`}>
            <PlusIcon />
          </NumberField.Increment>
        </NumberField.Group>
      </NumberField.Root>
      {hint !== undefined && <Field.Description className="hint">{hint}</Field.Description>}
      <Field.Error className="problem" />
    </Field.Root>
  );
}

export function SliderInput({
  name,
  label,
  hint,
  value,
  onChange,
  ...limits
}: Numeric & { value: number; onChange: (value: number) => void }) {
  return (
    <Field.Root name={name} className="field">
      <Slider.Root
        value={value}
        onValueChange={(chosen) => onChange(Array.isArray(chosen) ? chosen[0] : chosen)}
        thumbAlignment="edge"
        className="slider"
        {...limits}
      >
        <div className="slider-head">
          <Slider.Label className="label">{label}</Slider.Label>
          <Slider.Value className="slider-value" />
        </div>
        <Slider.Control className="slider-control">
          <Slider.Track className="slider-track">
            <Slider.Indicator className="slider-indicator" />
            <Slider.Thumb className="slider-thumb" />
          </Slider.Track>
        </Slider.Control>
      </Slider.Root>
      {hint !== undefined && <Field.Description className="hint">{hint}</Field.Description>}
      <Field.Error className="problem" />
    </Field.Root>
  );
}

export function Choice<Value extends string>({
  name,
  label,
  hint,
  value,
  onChange,
  options,
}: Labelled & {
  value: Value;
  onChange: (value: Value) => void;
  options: readonly { value: Value; label: string; detail?: string }[];
}) {
  return (
    <Field.Root name={name} className="field">
      <Select.Root
        items={options.map((option) => ({ value: option.value, label: option.label }))}
        value={value}
        onValueChange={(chosen) => {
          if (chosen !== null) {
            onChange(chosen);
          }
        }}
      >
        <Select.Label className="label">{label}</Select.Label>
        <Select.Trigger className="input select">
          <Select.Value />
          <Select.Icon className="select-icon">
            <ChevronIcon />
          </Select.Icon>
        </Select.Trigger>
        <Select.Portal>
          <Select.Positioner className="positioner" sideOffset={6} alignItemWithTrigger={false}>
            <Select.Popup className="popup">
              <Select.List>
                {options.map((option) => (
                  <Select.Item key={option.value} value={option.value} className="option">
                    <span className="option-text">
                      <Select.ItemText>{option.label}</Select.ItemText>
                      {option.detail !== undefined && <span className="option-detail">{option.detail}</span>}
                    </span>
                    <Select.ItemIndicator className="option-mark">
                      <CheckIcon />
                    </Select.ItemIndicator>
                  </Select.Item>
                ))}
              </Select.List>
            </Select.Popup>
          </Select.Positioner>
        </Select.Portal>
      </Select.Root>
      {hint !== undefined && <Field.Description className="hint">{hint}</Field.Description>}
      <Field.Error className="problem" />
    </Field.Root>
  );
}
