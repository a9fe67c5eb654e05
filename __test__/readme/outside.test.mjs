// Links of the README, which is also read outside the repository, and of the pages; and a shell command.

import { execFile } from "node:child_process";
import { access, readFile, readdir } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { root } from "./examples.mjs";

const { files, repository } = createRequire(import.meta.url)("../../package.json");
const readme = await readFile(path.join(root, "README.md"), "utf8");
const home = `${repository.url.replace(/^git\+|\.git$/g, "")}/blob/main/`;

/** What the links lead to. Not the pictures: where the README is shown, they are taken from the repository. */
const targets = [...readme.matchAll(/(?<!!)\[[^\]]*\]\(([^)]*)\)/g)].map(([, target]) => target);

it("links only to existing files of the repository", async () => {
  const paths = targets
    .filter((target) => target.startsWith(home))
    .map((target) => target.slice(home.length));
  expect(paths).not.toEqual([]);
  for (const name of paths) await expectTarget(name);
});

it("links from each page only to existing files and headings", async () => {
  const pages = (await readdir(path.join(root, "docs"))).filter((name) => name.endsWith(".md"));
  for (const page of [...pages.map((name) => `docs/${name}`), "CONTRIBUTING.md", "SECURITY.md"]) {
    const text = await readFile(path.join(root, page), "utf8");
    for (const [, target] of text.matchAll(/\]\(([^)\s]*)\)/g)) {
      if (/^https?:/.test(target)) continue;
      const [file, anchor] = target.split("#");
      await expectTarget(
        [file ? path.join(path.dirname(page), file) : page, ...(anchor ? [anchor] : [])].join("#"),
      );
    }
  }
});

/** Expects a file of the repository, with the heading that is named behind `#`. */
async function expectTarget(target) {
  const [file, anchor] = target.split("#");
  await access(path.join(root, file));
  if (anchor === undefined) return;
  const headings = (await readFile(path.join(root, file), "utf8")).match(/^#+ .*$/gm);
  const anchors = headings.map((heading) => {
    return heading
      .replace(/^#+ /, "")
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-");
  });
  expect(anchors, target).toContain(anchor);
}

it("links to nothing that the published package lacks", () => {
  const relative = targets.filter((target) => !/^https:/.test(target));
  expect(relative.filter((target) => !files.includes(target.split("/")[0]))).toEqual([]);
  // A name in the text is no link, and leads nowhere in a package without these folders.
  expect(readme.match(/(?<!\[)`(docs|examples)\/[^`]*`/g)).toBeNull();
});

it("installs the packages that the tests need, and nothing else", async () => {
  const [command] = /^apt-get install .*$/m.exec(await readFile(path.join(root, "CONTRIBUTING.md"), "utf8"));
  const { stdout } = await promisify(execFile)("sh", ["-c", command.replace("apt-get install", "echo")], {
    cwd: root,
  });
  const lines = (await readFile(path.join(root, "scripts", "system-packages.txt"), "utf8")).split("\n");
  const packages = lines.map((line) => line.trim()).filter((line) => line && !line.startsWith("#"));
  expect(stdout.trim().split(" ")).toEqual(packages);
});
