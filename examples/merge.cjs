// Two sides change a folder that they once shared, and one is merged into the other. (In CommonJS, for a change.)

const { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } = require("node:fs/promises");
const os = require("node:os");
const path = require("node:path");
const {
  captureDirectorySnapshot,
  mergeDirectoryWithBaseline,
} = require("@paperclipai/sandbox-managed-runtime");

async function main() {
  const temporary = await mkdtemp(path.join(os.tmpdir(), "merge-"));
  try {
    const [theirs, ours] = ["theirs", "ours"].map((name) => path.join(temporary, name));
    await mkdir(ours);
    await writeFile(path.join(ours, "plan.txt"), "draft\n");
    const baseline = await captureDirectorySnapshot(ours);
    await cp(ours, theirs, { recursive: true });

    await writeFile(path.join(theirs, "plan.txt"), "their plan\n");
    await writeFile(path.join(ours, "plan.txt"), "our plan\n");
    await writeFile(path.join(ours, "ours.txt"), "only here\n");

    await mergeDirectoryWithBaseline({ baseline, sourceDir: theirs, targetDir: ours });
    console.log("plan.txt:", (await readFile(path.join(ours, "plan.txt"), "utf8")).trim());
    console.log("ours.txt:", (await readFile(path.join(ours, "ours.txt"), "utf8")).trim());

    const conflicts = path.join(ours, ".paperclip-runtime", "conflicts");
    const [time] = await readdir(conflicts);
    const kept = await readFile(path.join(conflicts, time, "plan.txt"), "utf8");
    console.log("backed up:", kept.trim());
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

void main();
