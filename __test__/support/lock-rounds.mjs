// node lock-rounds.mjs TARGET LOG ROUNDS: takes the merge lock again and again, and fails if another process has it too.

import { appendFile, rm, writeFile } from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";
import { withDirectoryMergeLock } from "../../index.js";

const [target, log, rounds] = process.argv.slice(2);

for (let round = 0; round < Number(rounds); round++) {
  await withDirectoryMergeLock(target, async () => {
    const mark = `${target}.inside`;
    await writeFile(mark, "", { flag: "wx" });
    await pause(Math.random() * 10);
    await appendFile(log, `${process.pid}\n`);
    await rm(mark);
  });
}
