// The modules as Node itself loads them, both ways.

import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";

const node = promisify(execFile);
const clients = fileURLToPath(new URL("../../clients", import.meta.url));

describe.each([
  ["local", ["createLocalClient"]],
  ["e2b", ["createE2bClient"]],
  ["cloudflare", ["cloudflareSandboxOptions", "createCloudflareBridgeClient", "createCloudflareClient"]],
  ["daytona", ["createDaytonaClient"]],
  ["docker", ["createDockerClient"]],
  ["ssh", ["createSshClient"]],
  ["conformance", ["checkSandboxClient"]],
])("clients/%s", (name, functions) => {
  const report = `console.log(JSON.stringify([${functions.map((name) => `typeof ${name}`)}]))`;
  const all = JSON.stringify(functions.map(() => "function"));

  it("can be imported", async () => {
    const source = `import { ${functions} } from ${JSON.stringify(`${clients}/${name}.js`)}; ${report}`;
    const { stdout } = await node(process.execPath, ["--input-type=module", "-e", source]);
    expect(stdout.trim()).toBe(all);
  });

  it("can be required", async () => {
    const source = `const { ${functions} } = require(${JSON.stringify(`${clients}/${name}.js`)}); ${report}`;
    const { stdout } = await node(process.execPath, ["--input-type=commonjs", "-e", source]);
    expect(stdout.trim()).toBe(all);
  });
});
