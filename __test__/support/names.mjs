// Prints the names of the package's exports for ES modules and for CommonJS.

import { createRequire } from "node:module";
import * as imported from "../../index.js";

const required = createRequire(import.meta.url)("../../index.js");
// Node adds these two to an imported CommonJS module.
const own = Object.keys(imported).filter((name) => name !== "default" && name !== "module.exports");

console.log(
  JSON.stringify({
    imported: own.sort(),
    required: Object.keys(required).sort(),
    same: own.every((name) => imported[name] === required[name]) && imported.default === required,
  }),
);
