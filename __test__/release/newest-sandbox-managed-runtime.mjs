// Replaces the newest release's module of that name: the shim file that docs/adapter-utils.md shows.

import * as git from "adapter-utils-2026.916.1/git-workspace-sync";
import { resolvePaperclipInstanceRootForAdapter as resolveInstanceRoot } from "adapter-utils-2026.916.1/server-utils";
import { createAdapterUtils } from "../../adapter-utils/index.js";

export {
  REFERENCED_SOURCE_IGNORE_FAILURE_REASONS,
  assertSyncOperationsConfined,
  buildSandboxExecutionSessionIdentity,
  createTarballFromDirectory,
  escapeTarExcludeLiteral,
  mergeExcludes,
  mirrorDirectory,
  parseSandboxRemoteExecutionSpec,
  referencedSourceIgnoreExcludeEntries,
  sandboxExecutionSessionMatches,
} from "../../adapter-utils/index.js";

export const { prepareSandboxManagedRuntime, resolveReferencedSourceIgnore } = createAdapterUtils({
  git,
  resolveInstanceRoot,
});
