// The providers' own objects must fit the clients, and the clients what prepare takes. Only compiled, never
// run.

import type { Container } from "@cloudflare/containers";
import type { ISandbox, SandboxOptions } from "@cloudflare/sandbox";
import type { Sandbox as DaytonaSandbox } from "@daytonaio/sdk";
import type { Sandbox } from "e2b";
import type {
  prepareSandboxManagedRuntime,
  SandboxManagedRuntimeClient,
} from "@paperclipai/sandbox-managed-runtime";
import {
  type CloudflareClientOptions,
  type CloudflareSandbox,
  cloudflareSandboxOptions,
  createCloudflareBridgeClient,
  createCloudflareClient,
} from "@paperclipai/sandbox-managed-runtime/clients/cloudflare";
import { checkSandboxClient } from "@paperclipai/sandbox-managed-runtime/clients/conformance";
import { createDaytonaClient } from "@paperclipai/sandbox-managed-runtime/clients/daytona";
import { createDockerClient } from "@paperclipai/sandbox-managed-runtime/clients/docker";
import { createE2bClient } from "@paperclipai/sandbox-managed-runtime/clients/e2b";
import { createLocalClient } from "@paperclipai/sandbox-managed-runtime/clients/local";
import { createSshClient } from "@paperclipai/sandbox-managed-runtime/clients/ssh";

declare const e2b: Sandbox;
declare const cloudflare: ISandbox;
declare const daytona: DaytonaSandbox;
declare const container: Pick<Container, "renewActivityTimeout">;

type Accepted = Parameters<typeof prepareSandboxManagedRuntime>[0]["client"];

const ssh = createSshClient({ host: "example", sshOptions: ["IdentitiesOnly=yes"] });
export const clients: Accepted[] = [
  createE2bClient(e2b, { lifetimeMs: 60_000, user: "root", timers: globalThis }),
  createCloudflareClient(cloudflare, { sleepAfter: 60, timers: globalThis }),
  createCloudflareClient(cloudflare, cloudflareSandboxOptions({ keepAlive: true })),
  createCloudflareBridgeClient({ url: "https://bridge", token: "t", sandboxId: "a", partBytes: 1 }),
  createDaytonaClient(daytona, { deadlineMs: 1, maxDownloadBytes: 1 }),
  createDockerClient({ container: "box", engine: "podman", command: ["sudo", "podman"], user: "0" }),
  createLocalClient({ root: "/srv", env: { NAME: "value" } }),
  ssh,
];
export const closed: Promise<void> = ssh.close();

// The SDK keeps `renewActivityTimeout` out of its interface, but the class has it.
export const renewed: CloudflareSandbox = Object.assign(cloudflare, container);

// Options made for `getSandbox` fit the client too, all of them: an option that is unknown to it is refused.
type Unknown = Exclude<keyof SandboxOptions, keyof CloudflareClientOptions>;
export const unknown: [Unknown] extends [never] ? true : Unknown = true;
declare const ofTheSdk: SandboxOptions;
export const same: Accepted = createCloudflareClient(cloudflare, ofTheSdk);

// What is made for `getSandbox` is what it takes, with the overrides that it was given.
export const plain: SandboxOptions = cloudflareSandboxOptions();
export const overridden: SandboxOptions = cloudflareSandboxOptions<SandboxOptions>({ normalizeId: true });
export const kept: true = cloudflareSandboxOptions({ normalizeId: true as const }).normalizeId;

export const checked: Promise<{ passed: boolean; failures: { advice: string }[] }> = checkSandboxClient(
  async (): Promise<SandboxManagedRuntimeClient> => createLocalClient(),
  { workDir: "/srv", only: ["an empty file arrives and returns"], limitMs: 1_000 },
);

// Were one of the types above `any`, these would be no errors.
// @ts-expect-error A sandbox of another provider.
createE2bClient(cloudflare);
// @ts-expect-error A sandbox of another provider.
createCloudflareClient(e2b);
// @ts-expect-error A sandbox of another provider.
createDaytonaClient(e2b);
// @ts-expect-error There is no such program.
createDockerClient({ container: "box", engine: "lxc" });
// @ts-expect-error A lifetime is a number.
createE2bClient(e2b, { lifetimeMs: "1h" });
// @ts-expect-error There is no such method.
void container.renewLease;
// @ts-expect-error A host is needed.
createSshClient({});
