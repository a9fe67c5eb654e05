#!/usr/bin/env node
"use strict";

// `npx @paperclipai/sandbox-managed-runtime`: the command-line program for users whose workspaces are restored.

const { parseArgs } = require("node:util");
const { Explained, WrongUse } = require("./explained.js");
const { shown, shownLine } = require("./text.js");

const HELP = `Usage: npx @paperclipai/sandbox-managed-runtime COMMAND

  conflicts DIR                  list the local versions that restores backed up in the workspace DIR,
                                 each with its difference to what is in the workspace now
  conflicts DIR VERSION...       show these with their whole difference
  conflicts DIR --names          list their names alone
  conflicts DIR --take VERSION   put a version back into the workspace; what is there is backed up in its turn
  conflicts DIR --drop VERSION   delete a version
  conflicts DIR --prune DAYS     delete all versions that are older than so many days
  check                          tell whether the package works on this machine, and which files it found
  report FILE [--all]            show a saved report: what onReport or onPrepareReport got, as JSON ("-": standard input)

  --help, --version

VERSION is a name as it is listed, or a directory of them. --take and --drop may be given several times.
Exit code: 0 when it was done, 1 when it was not, 2 for a wrong call.
`;

/** @param {string} line */
function print(line) {
  process.stdout.write(`${line}\n`);
}

async function main() {
  const { values, positionals } = readArguments();
  if (values.help) return print(HELP.trimEnd());
  if (values.version) return print(require("../js/version.js").version);
  const [command, first, ...others] = positionals;
  if (command === undefined) throw new WrongUse("No command was given.");
  if (!["check", "conflicts", "report"].includes(command)) {
    throw new WrongUse(`There is no command "${shown(command)}".`);
  }
  const { all = false, names = false, take = [], drop = [], prune } = values;
  const actions = [take.length > 0, drop.length > 0, prune !== undefined, names, others.length > 0];
  if (command === "check") {
    if (positionals.length > 1 || all || actions.includes(true)) throw new WrongUse("`check` takes nothing.");
    return require("./check.js").check(print);
  }
  if (command === "report") {
    if (first === undefined) throw new WrongUse("Which report? Name its file.");
    if (actions.includes(true)) throw new WrongUse("`report` takes one file, and --all.");
    return require("./report.js").report(first, { all, print });
  }
  if (first === undefined) throw new WrongUse("Which workspace? Name its directory.");
  if (all) throw new WrongUse("--all belongs to `report`.");
  if (actions.filter(Boolean).length > 1) {
    throw new WrongUse("Only one of VERSION, --names, --take, --drop and --prune can be done at once.");
  }
  const days = prune === undefined ? undefined : Number(prune);
  if (prune?.trim() === "" || (days !== undefined && !(days >= 0))) {
    throw new WrongUse(`--prune takes a number of days, not "${shown(String(prune))}".`);
  }
  const options = { versions: others, take, drop, prune: days, names, print };
  return require("./conflicts.js").conflicts(first, options);
}

function readArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        all: { type: "boolean" },
        drop: { type: "string", multiple: true },
        help: { type: "boolean", short: "h" },
        names: { type: "boolean" },
        prune: { type: "string" },
        take: { type: "string", multiple: true },
        version: { type: "boolean" },
      },
    });
  } catch (error) {
    throw error instanceof TypeError ? new WrongUse(error.message) : error;
  }
}

// A closed output (`| head`) does not interrupt work in progress.
process.stdout.on("error", (error) => {
  if (/** @type {NodeJS.ErrnoException} */ (error).code !== "EPIPE") throw error;
});

main().catch((error) => {
  const isOurs = error instanceof Explained || typeof error?.code === "string";
  const text = isOurs ? error.message : String(error?.stack ?? error);
  process.stderr.write(`${text.split("\n").map(shownLine).join("\n")}\n`);
  if (error instanceof WrongUse) process.stderr.write(`\n${HELP}`);
  process.exitCode = error instanceof WrongUse ? 2 : 1;
});
