import { execFile } from "node:child_process";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, it } from "vitest";

const compiler = path.join(
  path.dirname(createRequire(import.meta.url).resolve("typescript/package.json")),
  "bin/tsc",
);

it("fits the types of the providers' own packages", async () => {
  const project = fileURLToPath(new URL(".", import.meta.url));
  const compiling = promisify(execFile)(process.execPath, [
    compiler,
    "--project",
    project,
    "--pretty",
    "false",
  ]);
  // What the compiler has to say is on its standard output.
  const said = await compiling.then(
    () => "nothing",
    (error) => error.stdout,
  );
  expect(said).toBe("nothing");
});
