// node call.mjs EXPORT ARGUMENTS: calls an export of this package as a user who is not the superuser, and prints the
// outcome as JSON. The package is loaded first, because that user may not be able to read it.

import * as addon from "../../index.js";
import { OTHER_USER } from "./processes.mjs";

const [name, args] = process.argv.slice(2);

/** JSON has no Map. */
const revive = (_, value) => (Array.isArray(value?.$map) ? new Map(value.$map) : value);

if (process.getuid() === 0) {
  process.setgroups([]);
  process.setgid(OTHER_USER);
  process.setuid(OTHER_USER);
}

const outcome = await addon[name](...JSON.parse(args, revive)).then(
  (value) => ({ value }),
  (error) => ({ error: { ...error, message: error.message } }),
);
console.log(JSON.stringify(outcome));
