// A sandbox that was replaced, or that does not have what it was sent, and folders that were replaced.

import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmod, mkdir, readdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { beforeEach, describe, expect, it } from "vitest";
import { prepareSandboxManagedRuntime } from "../index.js";
import { describeTree, makeTree, temporaryFolder } from "./support/folders.mjs";
import { commandFolder, LocalSandbox, remoteWorkspace } from "./support/sandbox.mjs";
import { specFor } from "./support/spec.mjs";

const execute = promisify(execFile);
const RUNTIME = ".paperclip-runtime";
const MANY = Object.fromEntries(Array.from({ length: 30 }, (_, at) => [`src/file-${at}.js`, `${at}`]));

let workspace;
let remote;
let client;
let reports;

beforeEach(async () => {
  workspace = path.join(await temporaryFolder(), "workspace");
  await makeTree(workspace, { "a.txt": "a", "sub/b.txt": "b" });
  remote = await remoteWorkspace();
  client = new LocalSandbox();
  reports = [];
});

const prepare = (more) =>
  prepareSandboxManagedRuntime({
    spec: specFor(remote),
    adapterKey: "test",
    client,
    workspaceLocalDir: workspace,
    onReport: (report) => void reports.push(report),
    ...more,
  });

const here = () => describeTree(workspace, { without: RUNTIME });

/** Runs a command line in the sandbox's workspace. */
const agent = (command) => client.agent(`cd '${remote}' && ${command}`);

async function expectRefused({ restoreWorkspace }) {
  const before = await describeTree(workspace);
  await expect(restoreWorkspace()).rejects.toMatchObject({ code: "ERR_SANDBOX_REPLACED" });
  expect(await describeTree(workspace)).toStrictEqual(before);
}

/** A sandbox in which another restore's command packs, right before this one's archive is read. */
class Shared extends LocalSandbox {
  packed = 0;

  /** @param {number} times */
  constructor(times) {
    super();
    this.times = times;
  }

  async run(command, options) {
    if (/ download \S+ \S+ /.test(command)) {
      this.command = command;
      this.packed += 1;
    }
    return super.run(command, options);
  }

  async readFile(at) {
    if (at.endsWith("workspace-download.tar") && this.times > 0) {
      this.times -= 1;
      await super.run(this.command.replace(/ download \S+ \S+ /, " download none other "), {});
    }
    return super.readFile(at);
  }
}

/** A sandbox whose tar also runs a command in the archive's workspace. */
async function withTar(more) {
  const folder = path.join(await temporaryFolder(), "bin");
  await mkdir(folder);
  const wrapper = `#!/bin/sh\n/bin/tar "$@" || exit\ncase $1 in -xpf) ${more} ;; esac\n`;
  await writeFile(path.join(folder, "tar"), wrapper);
  await chmod(path.join(folder, "tar"), 0o755);
  return new LocalSandbox({ path: `${folder}:${process.env.PATH}` });
}

describe("a download that another restore has replaced", () => {
  it.each([
    ["in one part", {}],
    ["in parts", { partBytes: 65_536, compression: "none" }],
  ])("is asked for again, %s", async (_, more) => {
    client = new Shared(1);
    const { restoreWorkspace } = await prepare(more);
    await writeFile(path.join(remote, "new.bin"), randomBytes(200_000));
    await rm(path.join(remote, "a.txt"));
    await restoreWorkspace();
    expect(client.packed).toBe(2);
    expect(await here()).toStrictEqual(await describeTree(remote, { without: RUNTIME }));
  });

  it("is refused where that happens each time, and nothing is changed", async () => {
    client = new Shared(10);
    const { restoreWorkspace } = await prepare();
    await agent("rm -r * && echo new >new.txt");
    const before = await here();
    await expect(restoreWorkspace()).rejects.toMatchObject({
      code: "ERR_SANDBOX_ARCHIVE_INVALID",
      message: expect.stringContaining("another restore or prepare of this sandbox has replaced it"),
    });
    expect(await here()).toStrictEqual(before);
    client.times = 0;
    await restoreWorkspace();
    expect(await here()).toStrictEqual(await describeTree(remote, { without: RUNTIME }));
  });
});

describe("a sandbox that was replaced", () => {
  it.each([
    ["an empty folder", "rm -rf .[!.]* *"],
    ["an image's dotfiles", "rm -rf .[!.]* * && echo x >.bashrc && echo y >.profile"],
    [
      "an image that has a name in common",
      "rm -rf .[!.]* * && echo x >.bashrc && echo other >a.txt && rm a.txt",
    ],
    ["another workspace", "rm -rf .[!.]* * && mkdir lib && echo x >lib/x.c"],
  ])("by %s is told from an emptied one", async (_, command) => {
    const prepared = await prepare();
    await agent(command);
    await expectRefused(prepared);
  });

  it("by an older copy of itself is distinguished from one in which the agent reverted changes", async () => {
    await prepare();
    const snapshot = `${remote}-snapshot`;
    await execute("cp", ["-a", remote, snapshot]);
    await writeFile(path.join(workspace, "new.txt"), "new");
    const prepared = await prepare();
    await rm(remote, { recursive: true });
    await rename(snapshot, remote);
    await expectRefused(prepared);
  });

  it.each([
    ["the same adapter", {}],
    ["another adapter", { adapterKey: "other" }],
    ["another adapter with a hidden name", { adapterKey: ".other" }],
  ])(
    "by another prepare of %s is refused to the first session, and served to the second",
    async (_, more) => {
      const first = await prepare();
      const second = await prepare(more);
      await agent("echo edited >a.txt");
      await expectRefused(first);
      await second.restoreWorkspace();
      expect(await here()).toMatchObject({ "a.txt": "644 edited\n" });
    },
  );

  it("by a prepare that failed half-way is refused", async () => {
    const prepared = await prepare();
    const failing = await withTar("rm a.txt; exit 1");
    await expect(prepare({ client: failing, transfer: "full" })).rejects.toThrow();
    expect(await readdir(remote)).not.toContain("a.txt");
    await expectRefused(prepared);
  });
});

describe("a sandbox that is still the same", () => {
  it("is accepted if the agent removed the mark, as `git clean -fdx` does", async () => {
    const prepared = await prepare();
    await agent("git init -q . && git add a.txt sub && echo new >new.txt && git clean -fdxq");
    await agent("echo edited >a.txt && rm -rf .git");
    await prepared.restoreWorkspace();
    expect(await here()).toStrictEqual({ "a.txt": "644 edited\n", sub: "755/", "sub/b.txt": "644 b" });
    expect(reports.at(-1)).toMatchObject({ written: ["a.txt"], deleted: [] });
  });

  it("is accepted if the agent emptied it, and deleted files are backed up", async () => {
    await makeTree(workspace, MANY);
    const prepared = await prepare();
    await agent("rm -rf a.txt src sub");
    await prepared.restoreWorkspace();
    expect(await here()).toStrictEqual({});
    const { deleted, deletionsKept } = reports.at(-1);
    expect(deleted).toContain("src/file-1.js");
    const kept = deletionsKept.find(({ path }) => path === "src/file-1.js");
    expect(await readFile(path.join(workspace, kept.keptAt), "utf8")).toBe("1");
  });

  it("is accepted if it was emptied and had few files, without backups", async () => {
    const prepared = await prepare();
    await agent("rm -rf a.txt sub");
    await prepared.restoreWorkspace();
    expect(await here()).toStrictEqual({});
    expect(reports.at(-1).deletionsKept).toStrictEqual([]);
  });
});

describe("an entry that the upload lost", () => {
  it.each([
    ["a file that is missing", "rm a.txt"],
    ["a file that is another one", "echo something else >a.txt"],
    ["a file that is a folder", "rm a.txt; mkdir a.txt"],
    ["a file that is a link", "rm a.txt; ln -s sub/b.txt a.txt"],
  ])("is left alone by every restore: %s", async (_, lose) => {
    client = await withTar(lose);
    const prepared = await prepare();
    for (const version of ["1", "2"]) {
      await agent(`echo ${version} >sub/b.txt; echo ${version} >new.txt`);
      await prepared.restoreWorkspace();
      expect(await here()).toStrictEqual({
        "a.txt": "644 a",
        "new.txt": `644 ${version}\n`,
        sub: "755/",
        "sub/b.txt": `644 ${version}\n`,
      });
      expect(reports.at(-1).skipped.map(({ path }) => path)).toStrictEqual(["a.txt"]);
    }
  });

  it("is not touched, with its content if it is a folder", async () => {
    client = await withTar("rm -rf sub");
    const prepared = await prepare();
    await prepared.restoreWorkspace();
    expect(await here()).toStrictEqual({ "a.txt": "644 a", sub: "755/", "sub/b.txt": "644 b" });
    expect(reports.at(-1).skipped.map(({ path }) => path)).toStrictEqual(["sub", "sub/b.txt"]);
  });

  it("is not touched even if that is every entry", async () => {
    client = await withTar("rm -rf a.txt sub");
    const prepared = await prepare();
    await agent("echo new >new.txt");
    await prepared.restoreWorkspace();
    expect(await here()).toStrictEqual({
      "a.txt": "644 a",
      "new.txt": "644 new\n",
      sub: "755/",
      "sub/b.txt": "644 b",
    });
  });

  it("only in its mode is not a change by the agent", async () => {
    client = await withTar("chmod 600 a.txt; chmod 700 sub");
    const prepared = await prepare();
    await agent("echo edited >a.txt");
    await prepared.restoreWorkspace();
    expect(await here()).toStrictEqual({ "a.txt": "644 edited\n", sub: "755/", "sub/b.txt": "644 b" });
    await agent("rm -r sub");
    await prepared.restoreWorkspace();
    expect(await here()).toStrictEqual({ "a.txt": "644 edited\n" });
    await agent("rm a.txt; ln -s x a.txt");
    await prepared.restoreWorkspace();
    expect(await here()).toStrictEqual({ "a.txt": "-> x" });
    expect(reports.at(-1).conflicts).toStrictEqual([]);
  });

  it.each([
    ["", "echo edited >a.txt"],
    [
      ", also where the agent removed what the sandbox knew of it",
      "echo edited >a.txt; rm -rf .paperclip-runtime",
    ],
  ])("since bsdtar strips what it takes for a drive or a root is left alone%s", async (_, command) => {
    const commands = await commandFolder({ tar: "bsdtar" });
    client = new LocalSandbox({ path: `${commands}:${process.env.PATH}` });
    await makeTree(workspace, { "c:notes.txt": "drive", "notes.txt": "mine!", "\\root.txt": "r" });
    const prepared = await prepare();
    await agent(command);
    await prepared.restoreWorkspace();
    expect(await here()).toMatchObject({
      "a.txt": "644 edited\n",
      "c:notes.txt": "644 drive",
      "\\root.txt": "644 r",
    });
    const notes = await readFile(path.join(workspace, "notes.txt"), "utf8");
    // If nothing is known, an entry under the name there may be the agent's.
    expect(command.includes("rm") ? ["mine!", "drive"] : ["mine!"]).toContain(notes);
  });
});

describe("an asset", () => {
  it("whose folder became a link is refused, unless links are followed", async () => {
    const secret = path.join(await temporaryFolder(), "secret");
    await makeTree(secret, { key: "secret" });
    const skills = path.join(workspace, "skills");
    for (const localDir of [skills, path.join(workspace, "linked/secret")]) {
      await symlink(
        localDir === skills ? secret : path.dirname(secret),
        localDir === skills ? skills : path.join(workspace, "linked"),
      );
      client.calls.length = 0;
      const assets = [{ key: "skills", localDir }];
      await expect(prepare({ assets })).rejects.toMatchObject({ code: "ERR_SANDBOX_UNSAFE_PATH" });
      expect(client.calls).toStrictEqual([]);
      const followed = await prepare({ assets: [{ ...assets[0], followSymlinks: true }] });
      expect(await readdir(followed.assetDirs.skills)).toStrictEqual(["key"]);
    }
  });

  it.each([[["workspace"]], [["workspace-download.tar"]], [[".paperclip"]], [["a", "a-upload.tar"]]])(
    "whose key collides with a name of ours or of another is refused: %j",
    async (keys) => {
      const assets = keys.map((key) => ({ key, localDir: workspace }));
      await expect(prepare({ assets })).rejects.toMatchObject({ code: "ERR_INVALID_ARG_VALUE" });
      expect(client.calls).toStrictEqual([]);
    },
  );

  it("that links multiply is refused, naming a link", async () => {
    const tree = path.join(await temporaryFolder(), "tree");
    for (let level = 0; level < 20; level++) {
      await mkdir(path.join(tree, `${level}`), { recursive: true });
      for (const side of ["left", "right"])
        await symlink(`../${level + 1}`, path.join(tree, `${level}`, side));
    }
    await mkdir(path.join(tree, "20"));
    const assets = [{ key: "tree", localDir: path.join(tree, "0"), followSymlinks: true }];
    await expect(prepare({ assets })).rejects.toMatchObject({
      code: "ERR_SANDBOX_UNSUPPORTED",
      path: expect.stringContaining("/left"),
    });
  });
});

describe("excluded and preserved names", () => {
  it("may be thousands, and no command line grows", async () => {
    const names = Array.from({ length: 3000 }, (_, at) => `some-name-of-some-length-${at}`);
    await makeTree(workspace, { [`${names[0]}/x`]: "x" });
    const prepared = await prepare({
      workspaceExclude: names,
      preserveAbsentOnRestore: names.slice(0, 1500),
    });
    await agent(`mkdir ${names[2999]} && echo x >${names[2999]}/x && echo edited >a.txt`);
    await prepared.restoreWorkspace();
    expect(await here()).toMatchObject({ "a.txt": "644 edited\n", [`${names[0]}/x`]: "644 x" });
    expect(Object.keys(await here())).not.toContain(names[2999]);
    const lengths = client.calls.filter(([method]) => method === "run").map(([, command]) => command.length);
    expect(Math.max(...lengths)).toBeLessThan(2000);
  });

  it("may be all names, and the restore still works", async () => {
    const prepared = await prepare({ workspaceExclude: ["*"] });
    await agent("echo x >new.txt");
    await prepared.restoreWorkspace();
    expect(await here()).toStrictEqual({ "a.txt": "644 a", sub: "755/", "sub/b.txt": "644 b" });
  });

  it("may have any spelling of their paths", async () => {
    const prepared = await prepare({ preserveAbsentOnRestore: ["cache/", "./sub//x/.."] });
    await agent("mkdir -p cache && echo x >cache/x && echo edited >sub/b.txt");
    await prepared.restoreWorkspace();
    expect(await here()).toStrictEqual({ "a.txt": "644 a", sub: "755/", "sub/b.txt": "644 b" });
    await prepare({ preserveAbsentOnRestore: ["cache/"] });
    expect(await readFile(path.join(remote, "cache/x"), "utf8")).toBe("x\n");
    const outside = prepare({ preserveAbsentOnRestore: ["../x"] });
    await expect(outside).rejects.toMatchObject({ code: "ERR_INVALID_ARG_VALUE" });
  });
});

describe("the remote folder", () => {
  it("that is the home of the sandbox's user is not emptied", async () => {
    await makeTree(remote, { ".ssh/key": "secret" });
    client.run = (command) => client.agent(`HOME='${remote}'; export HOME; ${command}`);
    await expect(prepare()).rejects.toThrow(/home directory of the sandbox's user; nothing was changed/);
    expect(await readFile(path.join(remote, ".ssh/key"), "utf8")).toBe("secret");
  });

  it("keeps our own folder out of the agent's commits", async () => {
    await prepare({ assets: [{ key: "skills", localDir: workspace }] });
    await agent("git init -q . && git add -A && git ls-files >../listed");
    const listed = await readFile(path.join(path.dirname(remote), "listed"), "utf8");
    expect(listed).toBe("a.txt\nsub/b.txt\n");
  });
});

it("a sandbox that answers with changes where everything was asked for is refused, as one that sends what is invalid", async () => {
  const read = client.readFile.bind(client);
  client.readFile = async (name) => {
    const content = Buffer.from(await read(name));
    for (let at = content.indexOf("\nindexed "); at >= 0; at = content.indexOf("\nindexed ", at))
      content.write("\nchanges ", at);
    return content;
  };
  const { restoreWorkspace } = await prepare();
  await expect(restoreWorkspace()).rejects.toMatchObject({
    code: "ERR_SANDBOX_ARCHIVE_INVALID",
    message: expect.stringContaining("although everything was asked for"),
  });
});
