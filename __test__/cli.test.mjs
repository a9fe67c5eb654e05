// The command-line program: lists, compares, takes over, drops and prunes the backups of restores, and shows reports.

import { spawn, spawnSync } from "node:child_process";
import { chmod, lstat, mkdir, readFile, readdir, stat, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { mergeDirectoryWithBaseline, captureDirectorySnapshot, withDirectoryMergeLock } from "../index.js";
import { diff } from "../cli/diff.js";
import { temporaryFolder } from "./support/folders.mjs";

const MAIN = fileURLToPath(new URL("../cli/main.js", import.meta.url));
const TIME = "2026-01-31T10-20-30.400Z";

function cli(...args) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...args], { encoding: "utf8" });
  return { status, stdout, stderr };
}

/** A workspace, with files, and with backups of files. */
async function workspaceWith(files, kept, time = TIME) {
  const workspace = await temporaryFolder();
  const write = async (name, content) => {
    await mkdir(path.dirname(path.join(workspace, name)), { recursive: true });
    await writeFile(path.join(workspace, name), content);
  };
  for (const [name, content] of Object.entries(files)) await write(name, content);
  for (const [name, content] of Object.entries(kept)) {
    await write(`.paperclip-runtime/conflicts/${time}/${name}`, content);
  }
  return workspace;
}

const conflictsOf = (workspace) => path.join(workspace, ".paperclip-runtime", "conflicts");
const textOf = (workspace, name) => readFile(path.join(workspace, name), "utf8");

describe("the list of backups", () => {
  it("shows what a merge backed up, with its difference to the workspace", async () => {
    const [source, target] = [await temporaryFolder(), await temporaryFolder()];
    for (const dir of [source, target]) await writeFile(path.join(dir, "a.txt"), "one\ntwo\n");
    const baseline = await captureDirectorySnapshot(source);
    await writeFile(path.join(source, "a.txt"), "one\ntheirs\n");
    await writeFile(path.join(target, "a.txt"), "one\nours\n");
    await mergeDirectoryWithBaseline({ baseline, sourceDir: source, targetDir: target });

    const { status, stdout } = cli("conflicts", target);

    expect(stdout).toMatch(/^\d{4}-\d\d-\d\dT[\d-]+\.\d{3}Z\/a\.txt$/m);
    expect(stdout).toContain("@@ -1,2 +1,2 @@\n     one\n    -theirs\n    +ours\n");
    expect(status).toBe(0);
  });

  it("is empty if nothing was backed up", async () => {
    const workspace = await temporaryFolder();
    expect(cli("conflicts", workspace)).toMatchObject({
      status: 0,
      stdout: `There are no backups in ${workspace}.\n`,
    });
  });

  it("says what is the same, gone, of another mode, binary, too large or a link", async () => {
    const large = "x".repeat(2 ** 20 + 1);
    const workspace = await workspaceWith(
      { same: "a", mode: "a", binary: "a\0b", large, "dir/file": "" },
      { same: "a", gone: "a", mode: "a", binary: "a\0c", large: `${large}y`, dir: "a" },
    );
    await chmod(path.join(workspace, "mode"), 0o755);
    await symlink("/etc", path.join(conflictsOf(workspace), TIME, "link"));

    const { stdout } = cli("conflicts", workspace);

    expect(stdout).toContain("/same\n    a file of 1 B, mode 644; the same is in the workspace now\n");
    expect(stdout).toContain("/gone\n    a file of 1 B, mode 644; not in the workspace now\n");
    expect(stdout).toMatch(/\/mode\n.*mode 755; only the mode differs\n/);
    expect(stdout).toMatch(/\/binary\n.*; the bytes differ\n/);
    expect(stdout).toMatch(/\/large\n.*; too large to show the difference\n/);
    expect(stdout).toMatch(/\/dir\n.*in the workspace now: a directory\n/);
    expect(stdout).toContain("/link\n    a link to /etc; not in the workspace now\n");
  });

  it("shows a long difference completely if the version is named", async () => {
    const lines = (word) => Array.from({ length: 40 }, (_, at) => `${word} ${at}\n`).join("");
    const workspace = await workspaceWith({ a: lines("here") }, { a: lines("kept"), b: "" });
    expect(cli("conflicts", workspace).stdout).toContain("… and 61 more lines: name the version to see them");
    const { stdout } = cli("conflicts", workspace, `.paperclip-runtime/conflicts/${TIME}/a`);
    expect(stdout).toContain("+kept 39");
    expect(stdout).not.toContain("/b\n");
  });

  it("shows names and contents without control characters", async () => {
    const workspace = await workspaceWith({}, {});
    const kept = path.join(conflictsOf(workspace), TIME);
    await mkdir(kept, { recursive: true });
    for (const [name, content] of [
      ["e\u001b[2J\n\u202e\u009b\\", "\u001b]0;x\u0007\tz\n"],
      [Buffer.from([0xff]), "y"],
    ]) {
      await writeFile(Buffer.concat([Buffer.from(`${kept}/`), Buffer.from(name)]), content);
      await writeFile(Buffer.concat([Buffer.from(`${workspace}/`), Buffer.from(name)]), "");
    }

    const { status, stdout } = cli("conflicts", workspace);

    expect(stdout).toContain(`${TIME}/e\\x1b[2J\\x0a\\u{202e}\\x9b\\\\\n`);
    expect(stdout).toContain(`${TIME}/\\xff\n`);
    expect(stdout).toContain("+\\x1b]0;x\\x07\tz\n");
    // eslint-disable-next-line no-control-regex
    expect(stdout).not.toMatch(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202e]/);
    expect(status).toBe(0);
    expect(cli("conflicts", workspace, "--drop", `${TIME}/\\xff`).status).toBe(0);
    expect(await readdir(kept)).toHaveLength(1);
  });

  it("ends quietly if its output is closed", async () => {
    const kept = Object.fromEntries(Array.from({ length: 3000 }, (_, at) => [`name-${at}`, "x"]));
    const workspace = await workspaceWith({}, kept);
    const child = spawn("sh", [
      "-c",
      '"$0" "$1" conflicts "$2" | head -1',
      process.execPath,
      MAIN,
      workspace,
    ]);
    let errors = "";
    child.stderr.on("data", (text) => (errors += text));
    await new Promise((resolve) => child.once("close", resolve));
    expect(errors).toBe("");
  });
});

describe("taking a version over", () => {
  it("puts it into the workspace, backs up what it replaces, and removes the version", async () => {
    const workspace = await workspaceWith({ "d/a": "now", "d/b": "b" }, { "d/a": "kept", "d/b": "kept b" });
    await chmod(path.join(workspace, "d"), 0o700);

    const { status, stdout } = cli("conflicts", workspace, "--take", `${TIME}/d/a`);

    expect(stdout).toMatch(/^Taken over: d\/a\nWhat was there is backed up as (.*)\/d\/a\n$/);
    expect(status).toBe(0);
    expect(await textOf(workspace, "d/a")).toBe("kept");
    expect(await textOf(workspace, "d/b")).toBe("b");
    expect((await stat(path.join(workspace, "d"))).mode & 0o777).toBe(0o700);
    const [, kept] = /backed up as (.*)/.exec(stdout);
    expect(await readFile(path.join(conflictsOf(workspace), kept), "utf8")).toBe("now");
    expect(await readdir(path.join(conflictsOf(workspace), TIME, "d"))).toEqual(["b"]);
  });

  it("removes no other version, however old it is", async () => {
    const workspace = await workspaceWith({ a: "now" }, { a: "old" }, "2020-01-01T00-00-00.000Z");
    await mkdir(path.join(conflictsOf(workspace), TIME));
    await writeFile(path.join(conflictsOf(workspace), TIME, "a"), "kept");

    expect(cli("conflicts", workspace, "--take", `${TIME}/a`).status).toBe(0);

    expect(await textOf(conflictsOf(workspace), "2020-01-01T00-00-00.000Z/a")).toBe("old");
  });

  it("takes a directory with its content, and a link as a link", async () => {
    const workspace = await workspaceWith({ d: "a file" }, { "d/x/y": "y" });
    await symlink("/etc/passwd", path.join(conflictsOf(workspace), TIME, "d", "link"));

    expect(cli("conflicts", workspace, "--take", `${TIME}/d/`)).toMatchObject({ status: 0 });

    expect(await textOf(workspace, "d/x/y")).toBe("y");
    expect((await lstat(path.join(workspace, "d/link"))).isSymbolicLink()).toBe(true);
    expect(await readdir(conflictsOf(workspace))).toHaveLength(1);
  });

  it("writes nothing outside the workspace through a link in it", async () => {
    const outside = await temporaryFolder();
    const workspace = await workspaceWith({}, { "d/a": "kept" });
    await symlink(outside, path.join(workspace, "d"));

    expect(cli("conflicts", workspace).stdout).toContain("not in the workspace now");
    expect(cli("conflicts", workspace, "--take", `${TIME}/d/a`).status).toBe(0);

    expect(await readdir(outside)).toEqual([]);
    expect(await textOf(workspace, "d/a")).toBe("kept");
  });
});

describe("dropping versions", () => {
  it("removes the named versions, including read-only ones, and no others", async () => {
    const workspace = await workspaceWith({ a: "now" }, { "d/e/a": "1", "d/b": "2", c: "3" });
    await chmod(path.join(conflictsOf(workspace), TIME, "d/e"), 0o555);

    expect(cli("conflicts", workspace, "--drop", `${TIME}/d/e`, "--drop", `${TIME}/c`)).toMatchObject({
      status: 0,
      stdout: `Dropped: ${TIME}/d/e\nDropped: ${TIME}/c\n`,
    });

    expect(await readdir(path.join(conflictsOf(workspace), TIME, "d"))).toEqual(["b"]);
    expect(await readdir(path.join(conflictsOf(workspace), TIME))).toEqual(["d"]);
  });

  it.each(["..", "../..", `${TIME}/../..`, "/etc", "", ".", "no-such"])("refuses %j", async (name) => {
    const workspace = await workspaceWith({ a: "now" }, { a: "1" });
    for (const action of ["--drop", "--take"]) {
      const { status, stderr } = cli("conflicts", workspace, action, name);
      expect(stderr).toMatch(/^There is no backup /);
      expect(status).toBe(1);
    }
    expect(await textOf(conflictsOf(workspace), `${TIME}/a`)).toBe("1");
  });

  it("follows no link out of the directory of backups", async () => {
    const outside = await temporaryFolder();
    await writeFile(path.join(outside, "precious"), "");
    const workspace = await workspaceWith({}, { a: "1" });
    await symlink(outside, path.join(conflictsOf(workspace), TIME, "link"));

    expect(cli("conflicts", workspace, "--drop", `${TIME}/link/precious`).status).toBe(1);
    expect(cli("conflicts", workspace, "--drop", TIME).status).toBe(0);
    expect(await readdir(outside)).toEqual(["precious"]);
  });

  it.each([".paperclip-runtime", ".paperclip-runtime/conflicts"])("refuses a link at %s", async (link) => {
    const elsewhere = await workspaceWith({}, { a: "1" });
    const workspace = await temporaryFolder();
    await mkdir(path.dirname(path.join(workspace, link)), { recursive: true });
    await symlink(path.join(elsewhere, link), path.join(workspace, link));

    for (const args of [[], ["--drop", `${TIME}/a`], ["--take", `${TIME}/a`], ["--prune", "0"]]) {
      const { status, stderr } = cli("conflicts", workspace, ...args);
      expect(stderr).toContain("is not a directory of the workspace, and was not read.");
      expect(status).toBe(1);
    }
    expect(await textOf(conflictsOf(elsewhere), `${TIME}/a`)).toBe("1");
  });

  it("prunes what is older than the given days, and only names that restores give", async () => {
    const workspace = await workspaceWith({}, { a: "1" }, "2020-01-01T00-00-00.000Z~2");
    const recent = new Date(Date.now() - 3_600_000).toISOString().replaceAll(":", "-");
    for (const name of [recent, "2020-01-01", "notes"]) {
      await mkdir(path.join(conflictsOf(workspace), name));
      await writeFile(path.join(conflictsOf(workspace), name, "a"), "");
    }

    const { status, stdout } = cli("conflicts", workspace, "--prune", "30");

    expect(stdout).toBe("Dropped: 2020-01-01T00-00-00.000Z~2\n");
    expect(status).toBe(0);
    expect((await readdir(conflictsOf(workspace))).sort()).toEqual(["2020-01-01", "notes", recent].sort());
    expect(cli("conflicts", workspace, "--prune", "30").stdout).toContain("older than 30 days.");
  });

  it.each([
    ["--drop", `${TIME}/a`],
    ["--take", `${TIME}/a`],
  ])("%s waits for a merge that holds the workspace's lock", async (...action) => {
    const workspace = await workspaceWith({}, { a: "1" });
    let isReleased = false;
    let ended;
    await withDirectoryMergeLock(workspace, async () => {
      const child = spawn(process.execPath, [MAIN, "conflicts", workspace, ...action], { stdio: "ignore" });
      ended = new Promise((resolve) => child.once("close", (code) => resolve({ code, isReleased })));
      await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 1500))]);
      expect(await textOf(conflictsOf(workspace), `${TIME}/a`)).toBe("1");
      isReleased = true;
    });
    expect(await ended).toEqual({ code: 0, isReleased: true });
  });
});

describe("a saved report", () => {
  const RESTORE = {
    written: Array.from({ length: 25 }, (_, at) => `file-${at}`),
    deleted: [],
    conflicts: [{ path: "a\u001b[2J", keptAt: `.paperclip-runtime/conflicts/${TIME}/a` }],
    heldBack: [{ path: ".git/config", what: "core.pager", reason: "it would run something" }],
    refsKept: [{ repository: ".git", name: "refs/heads/main", keptAt: "refs/paperclip/x/heads/main" }],
    later: ["a field of a later version"],
    entries: 1234,
    tarMessages: "",
    phases: [{ name: "run", durationMs: 1.23, bytes: 0 }],
  };
  const saved = async (content) => {
    const file = path.join(await temporaryFolder(), "report.json");
    await writeFile(file, typeof content === "string" ? content : JSON.stringify(content));
    return file;
  };

  it("of a restore is shown list by list, without control characters, and long lists completely only on request", async () => {
    const file = await saved(RESTORE);
    const { status, stdout } = cli("report", file);
    expect(status).toBe(0);
    expect(stdout).toContain("entries: 1,234\n");
    expect(stdout).toContain("Taken from the sandbox (25)\n  file-0\n");
    expect(stdout).toContain("  … and 5 more: --all shows them\n");
    expect(stdout).toContain(`  a\\x1b[2J: backed up at .paperclip-runtime/conflicts/${TIME}/a\n`);
    expect(stdout).toContain("  .git/config: core.pager, it would run something\n");
    expect(stdout).toContain("  .git  refs/heads/main: stored at refs/paperclip/x/heads/main\n");
    expect(stdout).toContain("later (1)\n  a field of a later version\n");
    expect(stdout).not.toContain("Deleted");
    expect(cli("report", file, "--all").stdout).toContain("file-24\n");
  });

  it("of a prepare is shown archive by archive", async () => {
    const leftOut = [{ path: "x.log", reason: "excluded" }];
    const unmatchedExcludes = [{ pattern: "*.lgo", file: ".gitignore", line: 2 }];
    const archive = { label: "workspace", entries: 3, parts: 1, compression: "gzip", phases: [], leftOut };
    const archives = [{ ...archive, unmatchedExcludes }];
    const { stdout } = cli("report", await saved({ archives, failedRefreshes: 0 }));
    expect(stdout).toContain(
      "  workspace: entries 3, parts 1, compression gzip\n    Left out (1)\n      x.log: excluded\n",
    );
    expect(stdout).toContain(
      "    Exclude patterns that matched nothing (1)\n      *.lgo: file .gitignore, line 2\n",
    );
  });

  it.each([
    ["no JSON", "{", "is no JSON"],
    ["no report", "[1]", "is no report"],
    ["null", "null", "is no report"],
  ])("that is %s is refused in words", async (_, content, message) => {
    const { status, stderr } = cli("report", await saved(content));
    expect(stderr).toContain(message);
    expect(stderr).not.toMatch(/^ +at /m);
    expect(status).toBe(1);
  });
});

describe("a call", () => {
  it("for help or for the version is answered", () => {
    for (const flag of ["--help", "-h"]) {
      expect(cli(flag)).toMatchObject({
        status: 0,
        stdout: expect.stringContaining("conflicts DIR --take VERSION"),
      });
    }
    expect(cli("--version")).toMatchObject({ status: 0, stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) });
  });

  it("for a check says which binary was found", () => {
    const { status, stdout } = cli("check");
    expect(stdout).toMatch(/ works here\.\n +package +\/.*\n +binary +\/.*\.node\n +platform +/);
    expect(status).toBe(0);
  });

  it.each([
    [[], "No command"],
    [["nothing"], 'no command "nothing"'],
    [["conflicts"], "Which workspace?"],
    [["report"], "Which report?"],
    [["report", "a", "b"], "takes one file"],
    [["check", "a"], "takes nothing"],
    [["conflicts", ".", "--all"], "--all belongs"],
    [["conflicts", ".", "--take", "a", "--drop", "b"], "Only one of"],
    [["conflicts", ".", "--prune", "many"], "--prune takes a number"],
    [["conflicts", ".", "--prune="], "--prune takes a number"],
    [["conflicts", ".", "--unknown"], "Unknown option"],
  ])("%j is told to be wrong, and does nothing", (args, message) => {
    const { status, stdout, stderr } = cli(...args);
    expect(stderr).toContain(message);
    expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
  });

  it("for a missing directory fails", () => {
    expect(cli("conflicts", "/no/such")).toMatchObject({
      status: 1,
      stderr: 'There is no directory "/no/such".\n',
    });
  });
});

describe("a difference", () => {
  it.each([
    ["a\nb\nc\n", "a\nx\nc\n", ["@@ -1,3 +1,3 @@", " a", "-b", "+x", " c"]],
    ["", "a\n", ["@@ -0,0 +1,1 @@", "+a"]],
    ["a\n", "", ["@@ -1,1 +0,0 @@", "-a"]],
    ["a\n", "a\n", []],
    ["a\n", "a", ["@@ -1,1 +1,1 @@", "-a", "+a (no line break at the end)"]],
  ])("from %j to %j is the shortest", (before, after, expected) => {
    expect(diff(before, after)).toEqual(expected);
  });

  it("of lines that are far apart has a part for each", () => {
    const lines = Array.from({ length: 30 }, (_, at) => `${at}\n`);
    const changed = lines.with(2, "x\n").with(25, "y\n");
    const hunks = diff(lines.join(""), changed.join("")).filter((line) => line.startsWith("@@"));
    expect(hunks).toEqual(["@@ -1,6 +1,6 @@", "@@ -23,7 +23,7 @@"]);
  });

  it("that is too large is not computed", () => {
    const many = (word) => Array.from({ length: 1500 }, (_, at) => `${word}${at}\n`).join("");
    expect(diff(many("a"), many("b"))).toBeUndefined();
  });
});
