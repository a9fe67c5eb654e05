/**
 * A test function that registers all tests except those of these names. (Filtered by name, they would be reported as skipped.)
 *
 * @param {typeof import("vitest").it} register
 * @param {Record<string, string>} leftOut
 */
export function withoutThose(register, leftOut) {
  const isKept = (/** @type {string} */ name) => !Object.hasOwn(leftOut, name);
  /** @type {(register: Function) => (name: string, ...rest: unknown[]) => void} */
  const those =
    (register) =>
    (name, ...rest) => {
      if (isKept(name)) register(name, ...rest);
    };
  return Object.assign(those(register), {
    each: (/** @type {unknown[]} */ cases) => those(register.each(cases)),
    skipIf: (/** @type {unknown} */ condition) => those(register.skipIf(condition)),
  });
}
