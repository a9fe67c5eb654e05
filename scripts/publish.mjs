// Packs and publishes a version, with a signed statement of where it was built (npm provenance). Runs in the release's
// workflow (.github/workflows/release.yml), for the tag of that version.
//
//   node scripts/publish.mjs v1.2.3             publish
//   node scripts/publish.mjs --dry-run          a rehearsal, with the version and the binaries that are here: no tag, no date
//                                               in the changelog, and npm need not know the packages yet. Binaries of
//                                               another commit, or of changes, will do, but not in a workflow
//   node scripts/publish.mjs --check v1.2.3     only what can be told before anything is built: whether every file names
//                                               the version, and the tag's commit is on main
//   node scripts/publish.mjs --check            the same without a tag
//
// A version that is partly published already is completed: what the registry has, in the same bytes, is left out.

import { must } from "./packaging/commands.mjs";
import { PACKAGE, PLATFORMS } from "./packaging/platforms.mjs";
import {
  channelOf,
  inWorkflow,
  integrityOf,
  lookUp,
  planPublishing,
  requireNpm,
  requireWorkflow,
  warn,
} from "./packaging/publishing.mjs";
import { packRelease } from "./packaging/release.mjs";
import { readSource, requireTagOnMain } from "./packaging/source.mjs";
import { requireVersion } from "./packaging/versions.mjs";
import { Explained, runMain } from "./process.mjs";

await runMain(async () => {
  const { tag, check, dryRun } = parseArguments(process.argv.slice(2));
  const version = await requireVersion(tag);
  if (tag) await requireTagOnMain(tag);
  if (check) {
    console.log(`${tag ?? version} can be built`);
    return;
  }
  if (!dryRun) requireWorkflow(process.env);
  await requireNpm();

  // In this order: the main package asks for the others, so it comes last.
  const fromHere = dryRun && !inWorkflow(process.env);
  const packed = await packRelease(PLATFORMS, fromHere ? undefined : (await readSource()).commit);
  const packages = [];
  for (const { manifest, tarball } of packed) {
    const { name, version } = manifest;
    const release = { name, version, integrity: await integrityOf(tarball) };
    packages.push({ release, tarball, published: await lookUp(name, version) });
  }

  const { left, faults, warnings } = planPublishing(packages, { dryRun });
  if (faults.length > 0) throw new Explained(faults.join("\n"));
  for (const warning of warnings) warn(`This would end a release: ${warning}`, process.env);

  const channel = channelOf(
    version,
    packages.find(({ release }) => release.name === PACKAGE)?.published?.latest,
  );
  console.log(`${version} goes to the tag "${channel}"`);
  for (const { release, tarball } of packages) {
    if (!left.includes(release.name)) {
      console.log(`${release.name}@${version} is published already`);
      continue;
    }
    const options = ["--access=public", "--provenance", `--tag=${channel}`];
    await must("npm", ["publish", tarball, ...options, ...(dryRun ? ["--dry-run"] : [])]);
  }
});

/** @param {string[]} args */
function parseArguments(args) {
  const options = args.filter((arg) => arg.startsWith("-"));
  const unknown = options.find((option) => !["--check", "--dry-run"].includes(option));
  if (unknown) throw new Explained(`There is no option "${unknown}". There are: --check, --dry-run.`);
  const [tag, other] = args.filter((arg) => !arg.startsWith("-"));
  if (other) throw new Explained(`One tag is published at a time, and here are two: ${tag}, ${other}.`);
  const check = options.includes("--check");
  const dryRun = options.includes("--dry-run");
  if (!tag && !check && !dryRun) {
    throw new Explained("Name the tag that is published, as in `node scripts/publish.mjs v1.2.3`.");
  }
  return { tag, check, dryRun };
}
