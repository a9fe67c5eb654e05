// node lock-party.mjs ours|release TARGET LOG: holds the merge lock until its input ends, and logs when it enters
// and leaves.

import * as release from "@paperclipai/adapter-utils/workspace-restore-merge";
import { once } from "node:events";
import { appendFile } from "node:fs/promises";
import * as ours from "../../index.js";

const [whose, target, log] = process.argv.slice(2);
const { withDirectoryMergeLock } = { ours, release }[whose];

console.log("about to enter");
await withDirectoryMergeLock(target, async () => {
  await appendFile(log, `${process.pid} enters\n`);
  await once(process.stdin.resume(), "end");
  await appendFile(log, `${process.pid} leaves\n`);
});
