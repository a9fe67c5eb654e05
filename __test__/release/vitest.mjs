// Replaces vitest for the release's tests: the same, except that the tests in the list are never registered. (Filtered by
// name, they would be reported as skipped.)

import { it as register } from "vitest";
import { LEFT_OUT } from "./left-out.mjs";

export * from "vitest";

/** @type {(name: string, test: () => Promise<void>) => void} */
export const it = (name, test) => {
  if (!Object.hasOwn(LEFT_OUT, name)) register(name, test);
};
