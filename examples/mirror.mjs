// Makes one folder equal to another, except for preserved paths.

import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { mirrorDirectory } from "@paperclipai/sandbox-managed-runtime";

const temporary = await mkdtemp(path.join(os.tmpdir(), "mirror-"));
try {
  const [source, target] = ["source", "target"].map((name) => path.join(temporary, name));
  await mkdir(source);
  await mkdir(target);
  await writeFile(path.join(source, "new.txt"), "new\n");
  await writeFile(path.join(target, "stale.txt"), "stale\n");
  await writeFile(path.join(target, "settings.json"), "{}\n");

  await mirrorDirectory(source, target, { preserveAbsent: ["settings.json"] });
  console.log("in the target now:", (await readdir(target)).sort().join(", "));
} finally {
  await rm(temporary, { recursive: true, force: true });
}
