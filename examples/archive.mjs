// Archives a folder as a tar that every tar program extracts. The same folder gives the same bytes.

import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { createTarballFromDirectory } from "@paperclipai/sandbox-managed-runtime";

const temporary = await mkdtemp(path.join(os.tmpdir(), "archive-"));
try {
  const folder = path.join(temporary, "folder");
  await mkdir(folder);
  await writeFile(path.join(folder, "kept.txt"), "kept\n");
  await writeFile(path.join(folder, "noise.log"), "noise\n");

  const archives = ["first.tar", "second.tar"].map((name) => path.join(temporary, name));
  for (const archivePath of archives) {
    await createTarballFromDirectory({ localDir: folder, archivePath, exclude: ["*.log"] });
  }

  const [first, second] = await Promise.all(archives.map((archive) => readFile(archive)));
  console.log("the same bytes twice:", first.equals(second));
  console.log("without what is excluded:", !first.includes("noise.log"));
} finally {
  await rm(temporary, { recursive: true, force: true });
}
