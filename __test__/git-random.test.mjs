// Heartbeats in which both sides use git at random: no commit, no staged file and no edit of either side is gone.
//
// `GIT_SECONDS=600` makes it longer than two seconds a test, and `GIT_SEED` starts it at another seed, such as one that a failure names.

import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { expect, it } from "vitest";
import { createLocalClient } from "../clients/local.js";
import { prepareSandboxManagedRuntime } from "../index.js";
import { temporaryFolder } from "./support/folders.mjs";
import {
  FILES,
  HARMLESS,
  User,
  backupsIn,
  blobsOf,
  randomFrom,
  stateOf,
  textsOf,
} from "./support/random-git.mjs";
import { specFor } from "./support/spec.mjs";

const SECONDS = Number(process.env.GIT_SECONDS ?? 2);
const FIRST_SEED = Number(process.env.GIT_SEED ?? 1);
const HEARTBEATS = 6;

/** Runs cases of one seed each until the time is over; at least two. */
async function forSomeTime(runCase) {
  const until = Date.now() + SECONDS * 1000;
  for (let seed = FIRST_SEED; seed < FIRST_SEED + 2 || Date.now() < until; seed++) {
    const home = await temporaryFolder();
    const random = randomFrom(seed);
    const [person, agent] = ["person", "agent"].map((name) => new User(name, home, random));
    agent.done = person.done;
    const failure = await runCase({ home, random, person, agent }).then(
      () => undefined,
      (error) => error,
    );
    if (failure) throw new Error(`seed ${seed}, after ${person.done.join(", ")}`, { cause: failure });
  }
}

/** A workspace with a first commit, some work on top, and a sandbox for it. */
async function begin({ home, person }) {
  const workspace = path.join(home, "workspace");
  await mkdir(workspace);
  await person.git(workspace, "init", "-qb", "main");
  for (const name of FILES) await person.write(workspace, name, `${name}\n`);
  await person.git(workspace, "add", "-A");
  await person.git(workspace, "commit", "-qm", "first");
  for (let count = 0; count < 12; count++) await person.act(workspace);
  await mkdir(path.join(home, "sandbox"));
  const client = createLocalClient({ root: path.join(home, "sandbox") });
  const remote = path.join(home, "sandbox/workspace");
  const prepare = () =>
    prepareSandboxManagedRuntime({
      spec: specFor(remote),
      adapterKey: "test",
      client,
      workspaceLocalDir: workspace,
    });
  return { workspace, remote, prepare };
}

/** Both sides as they are. */
async function look({ person, agent }, { workspace, remote }) {
  const [here, there, textsHere, textsThere] = await Promise.all([
    stateOf(person, workspace),
    stateOf(agent, remote),
    textsOf(workspace),
    textsOf(remote),
  ]);
  return { here, there, textsHere, textsThere };
}

/** What the three-way merge makes of one file. */
function merged(base, theirs, ours) {
  if (theirs === base) return ours;
  if (ours === base || ours === theirs) return theirs;
  return theirs ?? ours;
}

const without = (all, ...others) => [...all].filter((one) => !others.some((other) => other?.has(one)));

/** Asserts what holds after each restore, whatever happened during it. */
async function expectSound({ person }, { workspace }) {
  await person.git(workspace, "fsck", "--full", "--no-dangling");
  for (const lock of ["index.lock", "HEAD.lock", "packed-refs.lock"]) {
    expect(existsSync(path.join(workspace, ".git", lock)), lock).toBe(false);
  }
}

it("heartbeats of random work lose nothing of either side, and stage nothing that nobody staged", () =>
  forSomeTime(async (sides) => {
    const { random, person, agent } = sides;
    const places = await begin(sides);
    const { workspace, remote, prepare } = places;
    let prepared;
    let base;
    for (let heartbeat = 0; heartbeat < HEARTBEATS; heartbeat++) {
      if (heartbeat === 0 || random.below(3) > 0) {
        person.done.push("PREPARE");
        prepared = await prepare();
        base = await look(sides, places);
        await agent.git(remote, "fsck", "--full", "--no-dangling");
        expect(base.textsThere).toStrictEqual(base.textsHere);
        expect(base.there.head).toBe(base.here.head);
        if (!base.here.isBusy) {
          const status = await person.git(workspace, "status", "--porcelain");
          expect(await agent.git(remote, "status", "--porcelain")).toBe(status);
        }
      }
      for (let count = random.below(12); count > 0; count--) {
        await (random.below(4) > 0 ? agent.act(remote) : person.act(workspace));
      }
      const before = await look(sides, places);
      person.done.push("RESTORE");
      await prepared.restoreWorkspace();

      await expectSound(sides, places);
      const after = await look(sides, places);
      const texts = new Set([...Object.values(after.textsHere), ...(await backupsIn(workspace))]);
      expect(without(before.here.known, after.here.known), "commits of the person").toStrictEqual([]);
      const brought = without(before.there.commits, base.there.commits, after.here.known);
      expect(brought, "commits of the agent").toStrictEqual([]);
      const uploaded = new Set([...base.there.index.values()].map((entry) => entry.split(" ")[1]));
      const gone = await blobsOf(person, workspace, without(before.here.named, after.here.named, uploaded));
      expect(without(gone.values(), texts), "what the person staged").toStrictEqual([]);
      for (const [name, entry] of after.here.staged) {
        if ([before.here, before.there].some(({ unmerged }) => unmerged.has(name))) continue;
        const by = [before.here, before.there].filter(
          ({ staged }) => staged.has(name) && staged.get(name) === entry,
        );
        expect(by, `who staged ${name}`).not.toStrictEqual([]);
      }
      const names = [base.textsThere, before.textsHere, before.textsThere].flatMap(Object.keys);
      for (const name of new Set(names)) {
        const [was, theirs, ours] = [base.textsThere, before.textsThere, before.textsHere].map(
          (of) => of[name],
        );
        expect(after.textsHere[name], name).toBe(merged(was, theirs, ours));
        if (ours !== undefined && ours !== was) expect(texts, `the person's ${name}`).toContain(ours);
      }
      base = { ...after, there: before.there, textsThere: before.textsThere };
      for (let count = random.below(8); count > 0; count--) await person.act(workspace);
    }
  }));

it("a person who works on during a restore loses nothing", () =>
  forSomeTime(async (sides) => {
    const { random, person, agent } = sides;
    const places = await begin(sides);
    const { workspace, remote, prepare } = places;
    for (let heartbeat = 0; heartbeat < 3; heartbeat++) {
      person.done.push("PREPARE");
      const prepared = await prepare();
      const base = await look(sides, places);
      for (let count = random.below(12); count > 0; count--) {
        await (random.below(4) > 0 ? agent.act(remote) : person.act(workspace));
      }
      const before = await look(sides, places);
      person.overwritten.clear();
      person.done.push("RESTORE");
      let isOver = false;
      const restored = prepared.restoreWorkspace().finally(() => (isOver = true));
      const made = new Set(before.here.known);
      while (!isOver) {
        await new Promise((resolve) => setTimeout(resolve, random.below(20)));
        await person.act(workspace, HARMLESS);
        for (const name of ["HEAD", "refs/stash"]) {
          const commit = await person.try(workspace, "rev-parse", "-q", "--verify", name);
          if (commit) made.add(commit);
        }
      }
      await restored;

      await expectSound(sides, places);
      const after = await look(sides, places);
      expect(without(made, after.here.known), "commits of the person").toStrictEqual([]);
      const brought = without(before.there.commits, base.there.commits, after.here.known);
      expect(brought, "commits of the agent").toStrictEqual([]);
      const blobs = await blobsOf(person, workspace, after.here.named);
      const texts = new Set([
        ...[...Object.values(after.textsHere), ...(await backupsIn(workspace))],
        ...[...blobs.values(), ...person.overwritten],
      ]);
      const edits = Object.entries(before.textsHere).filter(([name, text]) => text !== base.textsHere[name]);
      expect(
        without(
          edits.map(([, text]) => text),
          texts,
        ),
        "edits of the person",
      ).toStrictEqual([]);
    }
  }));
