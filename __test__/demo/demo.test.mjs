import { execFile } from "node:child_process";
import { chmod, mkdir, mkdtemp, readdir, realpath, rm, symlink, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { differences, readTree } from "../support/tree.mjs";

const DEMO = fileURLToPath(new URL("../../scripts/demo.mjs", import.meta.url));

/** @type {string} */
let temporary;
/** @type {string} */
let workspace;

beforeEach(async () => {
  temporary = await mkdtemp(path.join(await realpath(os.tmpdir()), "demo-test-"));
  workspace = path.join(temporary, "workspace");
  await mkdir(workspace);
  await mkdir(path.join(temporary, "tmp"));
});

afterEach(async () => {
  await rm(temporary, { recursive: true, force: true });
});

/**
 * Runs the demo with a folder for temporary files of its own.
 *
 * @param {string[]} args
 * @returns {Promise<{ code: number, output: string, left: string[] }>} `left`: its temporary files afterwards.
 */
async function demo(...args) {
  const tmp = path.join(temporary, "tmp");
  const env = { ...process.env, TMPDIR: tmp, INIT_CWD: temporary };
  const { code, output } = await new Promise((resolve) => {
    execFile(process.execPath, [DEMO, ...args], { env }, (error, stdout, stderr) => {
      resolve({ code: error ? error.code : 0, output: stdout + stderr });
    });
  });
  return { code, output, left: await readdir(tmp) };
}

const git = async (...args) => (await promisify(execFile)("git", args, { cwd: workspace })).stdout;

async function commitAll() {
  await git("init", "--quiet", "--initial-branch=main");
  await git("add", "--all");
  await git("-c", "user.name=T", "-c", "user.email=t@example.org", "commit", "--quiet", "--message=first");
}

describe("the demo", () => {
  it("takes a workspace through a conflict, a deletion, a new mode and a new link, and changes nothing in it", async () => {
    await mkdir(path.join(workspace, "src", "empty"), { recursive: true });
    for (const name of ["README.md", "it's.txt", "src/a.js", "src/b.js"]) {
      await writeFile(path.join(workspace, name), `${name}\n`);
    }
    await symlink("nowhere", path.join(workspace, "dangling"));
    await chmod(path.join(workspace, "src/a.js"), 0o755);
    await writeFile(Buffer.from(`${workspace}/not-utf8-\xff`, "latin1"), "bytes");
    const before = await readTree(workspace);

    const { code, output, left } = await demo("workspace");

    expect(output).toMatch(
      /Changed on both sides.* \(1\)\n +README\.md: backed up at \.paperclip-runtime\/conflicts\//,
    );
    expect(output).toMatch(/Deleted, because the sandbox deleted it \(1\)\n +it's\.txt/);
    expect(output).toMatch(/up +[\d,]+ bytes, after [\d,]+ bytes the first time/);
    expect(output).toMatch(/the agent edits +README\.md/);
    expect(output).toMatch(
      /writeFile +[\d,]+ +[\d.]+ +workspace\/\.paperclip-runtime\/demo\/workspace-upload\.tar/,
    );
    expect(output).toContain("Everything agrees");
    expect(output).not.toContain("\u001b");
    expect(code).toBe(0);
    expect(left).toEqual([]);
    expect(differences(before, await readTree(workspace), { exact: true })).toEqual([]);
  });

  it("takes this checkout, without what a build leaves in it, where no folder is named", async () => {
    const { code, output, left } = await demo();

    expect(output).toMatch(/workspace +a copy of .* \([\d,]+ files, [\d.]+ MB\)/);
    expect(output).toContain("Everything agrees");
    expect({ code, left }).toEqual({ code: 0, left: [] });
  });

  it("takes a git checkout, and has git compare the repositories", async () => {
    await writeFile(path.join(workspace, "README.md"), "text\n");
    await commitAll();

    const { code, output } = await demo(workspace);

    expect(output).toContain("git has the same history on both sides");
    expect(await git("log", "-1", "--format=%s")).toBe("first\n");
    expect(output).toContain("Everything agrees");
    expect(code).toBe(0);
  });

  it("brings a commit, and shows a hook that is held back, also for a folder that is not a checkout", async () => {
    await writeFile(path.join(workspace, "README.md"), "text\n");

    const { code, output } = await demo(workspace);

    expect(output).toContain("✓ the agent's commit is here");
    expect(output).toMatch(/Held back.*\n +\.git\/hooks\/post-checkout: /);
    expect(output).toContain(
      "✓ the agent's hook .git/hooks/post-checkout is not here, and the report says so",
    );
    expect(code).toBe(0);
  });

  it("commits nothing in the repository that a linked worktree belongs to", async () => {
    await writeFile(path.join(workspace, "README.md"), "text\n");
    await commitAll();
    const worktree = path.join(temporary, "worktree");
    await git("worktree", "add", "--quiet", "-b", "other", worktree);
    const before = await git("for-each-ref");

    const { code, output } = await demo(worktree);

    expect(output).toContain("✓ the agent's commit is here");
    expect(await git("for-each-ref")).toBe(before);
    expect(code).toBe(0);
  });

  it("prints its usage", async () => {
    const { code, output, left } = await demo("--help");
    expect(output).toContain("npm run demo -- [DIR] [--keep]");
    expect({ code, left }).toEqual({ code: 0, left: [] });
  });

  it("cleans up and prints no error if its output is closed", async () => {
    const tmp = path.join(temporary, "tmp");
    const env = { ...process.env, TMPDIR: tmp };
    const line = '"$0" "$1" "$2" | head -1';
    const { stderr } = await promisify(execFile)("sh", ["-c", line, process.execPath, DEMO, workspace], {
      env,
    });
    expect(stderr).toBe("");
    await expect.poll(() => readdir(tmp), { timeout: 30_000 }).toEqual([]);
  });

  it("works with an empty folder", async () => {
    const { code, output, left } = await demo(workspace);

    expect(output).toContain("there is no file to edit");
    expect(output).toContain("Everything agrees");
    expect(code).toBe(0);
    expect(left).toEqual([]);
  });

  it("works with a folder that has no file", async () => {
    await mkdir(path.join(workspace, "agent-notes"));
    await symlink("agent-notes", path.join(workspace, "latest-notes"));

    const { code, output } = await demo(workspace);

    expect(output).toContain("agent-notes-2/plan.md");
    expect(output).toContain("Everything agrees");
    expect(code).toBe(0);
  });

  it("leaves its temporary folders only on request", async () => {
    const { code, output, left } = await demo(workspace, "--keep");

    expect(left).toHaveLength(1);
    expect(output).toContain(path.join(temporary, "tmp", left[0]));
    expect(code).toBe(0);
  });

  it.each([
    ["a folder that does not exist", ["nowhere"], 'There is no folder "nowhere".'],
    ["a file", ["file"], '"file" is not a folder.'],
    ["a folder that holds the temporary files", ["."], '"." holds the folder for temporary files'],
    ["two folders", ["workspace", "workspace"], "The demo takes one folder."],
    ["an unknown option", ["--unknown"], "Unknown option '--unknown'"],
  ])("explains what is wrong with %s", async (_, args, message) => {
    await writeFile(path.join(temporary, "file"), "");

    const { code, output, left } = await demo(...args);

    expect(output).toContain(message);
    expect(output).not.toMatch(/^ +at /m);
    expect(code).toBe(1);
    expect(left).toEqual([]);
  });
});
