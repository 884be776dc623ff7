export type JsonObject = Record<string, unknown>;

/** Whether a parsed JSON value is an object, as opposed to an array, a scalar or null. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The value when it is a string with something in it, else null. */
export function textOrNull(value: unknown): string | null {
  return typeof value === "string" && value !== "" ? value : null;
}
